"""`ParametersToTrain`: a line on how much is trained, once callbacks have frozen what is not."""

from __future__ import annotations

import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class ParametersToTrain(pl.Callback):
    """Says, as the first epoch begins, how many parameters learn; it stands behind the callbacks that freeze."""

    def __init__(self) -> None:
        self._is_said = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_said or not trainer.is_global_zero:
            return
        self._is_said = True
        parameters = list(pl_module.parameters())
        num_all = sum(parameter.numel() for parameter in parameters)
        num_learning = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        count = f"{num_all:,}" if num_learning == num_all else f"{num_learning:,} of {num_all:,}"
        when = "" if num_learning == num_all else f" in epoch {trainer.current_epoch + 1}"
        Tqdm.write(f"{type(pl_module).__name__} with {count} parameters to train{when}")  # above a bar that is open
        sys.stdout.flush()
