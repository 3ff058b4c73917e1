"""`EpochLines`: the progress of a run, one line per epoch."""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

# What Touchstone shows in the bar, in words so short that all fit into 80 columns, first what is left of it in a
# narrow terminal; the tags of others keep their names.
SHORT_NAMES = {
    "val/clean_accuracy": "clean",
    "val/robust_accuracy/worst_case": "robust",
    "train/loss": "loss",
    "train/accuracy": "acc",
}


class EpochLines(TQDMProgressBar):
    """A bar for each epoch in a terminal, where the finished ones stay; a plain line for each in a log file."""

    BAR_FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"  # leaves room for the metrics at 80 columns

    def __init__(self) -> None:
        self._in_terminal = sys.stdout.isatty()
        super().__init__(refresh_rate=1 if self._in_terminal else 0, leave=True)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        ours = {short: shown.pop(name) for name, short in SHORT_NAMES.items() if name in shown}
        return {**ours, **shown}

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self._epoch(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not self._in_terminal and trainer.is_global_zero:
            values = (
                f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in self.get_metrics(trainer, pl_module).items()
            )
            print(self._epoch(trainer), *values, sep="  ", flush=True)

    def _epoch(self, trainer: pl.Trainer) -> str:
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        return f"epoch {trainer.current_epoch + 1}{last}"
