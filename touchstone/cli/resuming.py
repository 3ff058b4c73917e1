"""`--ckpt_path last`: which checkpoint that is, and what it takes to go on in the folder of its run."""

from __future__ import annotations

import csv
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from ..runs.find_checkpoint import FoundCheckpoint, find_checkpoint, folder_of, runs_with_checkpoint, step_of
from .loader import Loader
from .mistakes import UsageError

VERSION = "trainer.logger.init_args.version"


def note(text: str) -> None:
    """Says something that a user should know and need not act on; of several processes, one speaks for all."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr, flush=True)


def name_checkpoint(config: Namespace, *, to_fit: bool) -> FoundCheckpoint | None:
    """Puts the file that `last` or `best` means into `ckpt_path`: of the run whose `version` is given, or the newest.

    What is no `fit` takes the newest also where the run of that version has none.

    Args:
        config: of the subcommand.
        to_fit: whether it is `fit`, which goes on with `last` in the folder of its run.

    Returns:
        The checkpoint in whose folder the run goes on; None where it has a folder of its own.

    Raises:
        UsageError: there is no such checkpoint, or it is damaged.
    """
    name = config.get("ckpt_path")
    if name not in ("best", "last"):
        return None
    logger = config.get("trainer.logger")
    is_default = logger is None or logger is True  # then Lightning makes one
    experiment = _default_folder(config) if is_default else _experiment_folder(logger)
    version = _version(logger)
    if experiment is None:
        raise UsageError(
            f"--ckpt_path {name} looks among the runs of a TensorBoardLogger or CSVLogger, and trainer.logger has none "
            "as its first: name a file"
        )
    try:
        found = find_checkpoint(experiment, name, version)
        if found is None and not to_fit:  # then it names the folder that what is measured goes into
            found = find_checkpoint(experiment, name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if found is None:
        where, (others, path) = f"no run in {str(experiment)!r} has a", runs_with_checkpoint(experiment, name)
        if version is not None and to_fit:
            where = f"the run {str(folder_of(experiment, version))!r}, which the logger's version names, has no"
        elif others:
            where = f"no run in {str(experiment)!r} whose folder has a number, version_N, has a"
        by_version = to_fit and isinstance(logger, Namespace)
        advice = "" if path is None else _advice(others, path, by_version=by_version)
        raise UsageError(f"--ckpt_path {name}: {where} checkpoint of this name{advice}")
    for problem in found.damaged:
        note(problem)
    note(f"--ckpt_path {name} is {found.path}")
    config.ckpt_path = str(found.path)
    return found if to_fit else None


def _advice(others: list[str], path: Path, *, by_version: bool) -> str:
    """How a run is named whose folder is none of `version_N`, and in which `fit` goes on."""
    have = "has one" if len(others) == 1 else "have one each"
    option = f"--{VERSION} {_as_option(others[0])}" if by_version else f"--ckpt_path {path}"
    return f"; {', '.join(map(repr, others[:5]))} {have}: name the run, as by {option}"


def _as_option(folder: str) -> str:
    """The version by which an option names a run: its number, but for one with zeros in front, which a parser drops."""
    number = folder.removeprefix("version_")
    return number if number.isdecimal() and str(int(number)) == number else folder


def options_to_go_on(config: Namespace, folder: Path) -> str:
    """Those by which `fit` goes on with the last checkpoint of this run and no other, by the config that it keeps."""
    logger = config.get("trainer.logger")
    experiment, version = _experiment_folder(logger), _version(logger)
    if experiment is not None and version is not None and folder_of(experiment, version) == folder:
        return "--ckpt_path last"
    is_numbered = folder.name.removeprefix("version_").isdecimal()
    if experiment != folder.parent or isinstance(logger, list) or not is_numbered:  # no option names the run
        return f"--ckpt_path {folder / 'checkpoints' / 'last.ckpt'}"
    return f"--ckpt_path last --{VERSION} {_as_option(folder.name)}"


def keep_version(config: Namespace, found: FoundCheckpoint) -> None:
    """Lets the config of a run that goes on name its version where it did before: a new run must have its own."""
    try:
        kept = yaml.load((found.path.parent.parent / "config.yaml").read_text(encoding="utf-8"), Loader)
        version = kept["trainer"]["logger"]["init_args"]["version"]
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError):  # a list of loggers, which no option changes
        return
    if isinstance(config.get("trainer.logger"), Namespace):
        config[VERSION] = version


def _first(logger: Any) -> Namespace | None:
    """The logger with whose runs the checkpoints are, where it is one whose folders are known."""
    first = next(iter(logger), None) if isinstance(logger, list) else logger
    kinds = ("TensorBoardLogger", "CSVLogger")
    return first if isinstance(first, Namespace) and str(first.get("class_path")).endswith(kinds) else None


def _default_folder(config: Namespace) -> Path:
    """Where the folders of runs lie whose config says nothing of loggers."""
    return Path(config.get("trainer.default_root_dir") or "", "lightning_logs").expanduser()


def _experiment_folder(logger: Any) -> Path | None:
    """Where the folders of a config's runs lie."""
    first = _first(logger)
    return None if first is None else Path(first.init_args.save_dir, first.init_args.name or "")


def _version(logger: Any) -> int | str | None:
    """The run that a config names; None where each is to have a number of its own."""
    first = _first(logger)
    return None if first is None else first.init_args.get("version")


def go_on_from(found: FoundCheckpoint, trainer: Trainer) -> None:
    """Lets the curves go on in the folder of a run, from its checkpoint: what came after it is measured again.

    The first logger is given the version, and not its config, which stays that of a new run. Others go on where their
    config has a version, and else begin a folder of their own.
    """
    step = step_of(found.path) or 0
    for number, logger in enumerate(trainer.loggers):
        if not isinstance(logger, (TensorBoardLogger, CSVLogger)):
            continue
        if number == 0:
            logger._version = found.version
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step
        else:
            _go_on_in_table(logger, step)


@rank_zero_only
def _go_on_in_table(logger: CSVLogger, step: int) -> None:
    """Keeps the rows before a step: a `CSVLogger` begins by deleting the table that its folder has.

    Until the new table is written, the old one stays beside it.
    """
    table = Path(logger.log_dir, ExperimentWriter.NAME_METRICS_FILE)
    if not table.is_file():
        return
    with table.open(newline="") as file:
        rows: list[Any] = list(csv.DictReader(file))
    rows = [row for row in rows if (row["step"] or "").isdecimal() and int(row["step"]) < step]  # the last may be torn
    old = table.replace(table.with_suffix(".old"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Experiment logs directory")
        logger.experiment.metrics = rows
    logger.save()
    old.unlink()
