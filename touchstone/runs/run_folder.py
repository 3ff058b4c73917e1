"""`run_folder`, `tensorboard_writers` and `logged_step`: where a trainer's run is kept, and at which step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def run_folder(trainer: pl.Trainer) -> Path | None:
    """The folder of this run, or None where nothing is logged on this disk. A collective: every process calls it."""
    folder, logger = trainer.log_dir, next(iter(trainer.loggers), None)
    if folder is None or logger is None:
        return None
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return Path(folder)
    # Of any other logger, Lightning knows the folder of all runs only; `ModelCheckpoint` has this one below it.
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(trainer.strategy.broadcast(str(Path(folder, str(logger.name), version))))


def tensorboard_writers(trainer: pl.Trainer) -> list[Any]:
    """The summary writers of the trainer's TensorBoard loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def logged_step(trainer: pl.Trainer) -> int:
    """The step at which Lightning writes the figures of a pass that is running.

    It counts batches, up to the one that a validation follows; `trainer.global_step` counts the steps of all
    optimizers, and is one further already, where a resumed run takes away what came after its checkpoint.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped
