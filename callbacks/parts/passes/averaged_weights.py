"""Averages of the weights that take the place of the weights for as long as a validation lasts."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging

from touchstone.runs.of_trainer import callbacks_of


def check_order(probe: pl.Callback, trainer: pl.Trainer) -> None:
    """Raises ValueError where an average is taken back before a probe has ended its pass.

    Lightning asks callbacks in their order, at the end of a validation too: what is measured there would be the weights
    before averaging, of some samples of the pass or of all.
    """
    for callback in callbacks_of(trainer, pl.Callback):
        if callback is probe:
            return
        if isinstance(callback, WeightAveraging):
            who, whose = type(probe).__name__, type(callback).__name__
            raise ValueError(
                f"{who} must stand before {whose} in the list of callbacks, got it behind: there it would measure some "
                "samples with averaged weights and others with those before averaging"
            )
