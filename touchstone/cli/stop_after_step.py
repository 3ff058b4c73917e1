"""`StopAfterStep`: a signal ends a training between two steps, with a checkpoint from which it goes on exactly."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch

from ..runs.run_folder import run_folder
from .stopping import Stopping


class StopAfterStep(pl.Callback):
    """Finishes the step, and the validation that belongs to it, writes `checkpoints/last.ckpt`, and ends the run.

    Args:
        stopping: knows of the signal; while a training runs, it leaves the end to this callback.
    """

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stopping.waits = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._is_asked(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        # Lightning goes on from here only where nothing else belongs to the step.
        if loop.batch_progress.is_last_batch or loop._should_accumulate() or loop._should_check_val_fx(fetcher):
            return
        _let_checkpoints(trainer, "on_train_batch_end", outputs, batch, batch_idx)
        pl_module.on_train_batch_end(outputs, batch, batch_idx)
        trainer._logger_connector.on_batch_end()
        trainer._logger_connector.update_train_step_metrics()
        self._save_and_end(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_mid_epoch = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._stopping.waits and is_mid_epoch and not trainer.sanity_checking and self._is_asked(trainer):
            _let_checkpoints(trainer, "on_validation_end")
            self._save_and_end(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_asked(trainer):
            self._save_and_end(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stopping.waits = False
        if self._is_asked(trainer):
            _let_checkpoints(trainer, "on_train_end")
            self._save_and_end(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stopping.waits = False

    def _is_asked(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has come, to any of the processes: then it has come to all, which end alike."""
        number = int(self._stopping.signal or 0)
        if trainer.world_size > 1:
            asked: Any = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if number:  # and never none: a signal may have come meanwhile
            self._stopping.signal = signal.Signals(number)
        return number > 0

    def _save_and_end(self, trainer: pl.Trainer) -> NoReturn:
        folder = run_folder(trainer)
        if folder is not None:
            trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        raise SystemExit(self._stopping.exit_code)


def _let_checkpoints(trainer: pl.Trainer, hook: str, *arguments: Any) -> None:
    """Calls what Lightning would call after this callback: those that save checkpoints are always the last ones."""
    for callback in trainer.checkpoint_callbacks:
        getattr(callback, hook)(trainer, trainer.lightning_module, *arguments)
