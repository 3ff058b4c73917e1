"""`--ckpt_path last`: which checkpoint that is, and what it takes to go on in the folder of its run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from ..runs.find_checkpoint import find_checkpoint, step_of
from .given import UsageError


def note(text: str) -> None:
    """Says something that a user should know and need not act on; of several processes, one speaks for all."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr, flush=True)


def name_checkpoint(config: Namespace, *, to_fit: bool) -> bool:
    """Puts the file that `last` or `best` means into `ckpt_path`.

    Args:
        config: of the subcommand.
        to_fit: whether it is `fit`, which goes on with `last` in the folder of its run.

    Returns:
        Whether the run goes on in that folder.

    Raises:
        UsageError: there is no such checkpoint, or it is damaged.
    """
    name = config.get("ckpt_path")
    if name not in ("best", "last"):
        return False
    logger = config.get("trainer.logger")
    options = logger.get("init_args") if isinstance(logger, Namespace) else None
    if options is None or not str(logger.get("class_path")).endswith("TensorBoardLogger"):
        raise UsageError(
            f"--ckpt_path {name} looks among the runs of a TensorBoardLogger, and trainer.logger is none: name a file"
        )
    experiment = Path(options.save_dir, options.name or "")
    try:
        found = find_checkpoint(experiment, name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if found is None:
        raise UsageError(f"--ckpt_path {name}: no run in {str(experiment)!r} has a checkpoint of this name")
    for problem in found.damaged:
        note(problem)
    note(f"--ckpt_path {name} is {found.path}")
    config.ckpt_path = str(found.path)
    if to_fit:
        options.version = found.version
    return to_fit


def go_on_from(checkpoint: str, trainer: Trainer) -> None:
    """Lets the curves begin again where the checkpoint was written: what came after it is measured again."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step_of(Path(checkpoint))
