"""`widen_before_loading`: weights of a checkpoint in float64 are loaded as they are."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.precision import DoublePrecision

from touchstone.runs.of_trainer import callbacks_of


def widen_before_loading(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Puts the module in float64 where the trainer is about to.

    Lightning does so only after it has loaded the checkpoint, which float32 parameters have rounded by then. One in
    fewer bits loses none in them. So it is with the averages of weights, which a callback that was set up before has
    made of the module as it was then.
    """
    if not isinstance(trainer.precision_plugin, DoublePrecision):
        return
    trainer.precision_plugin.convert_module(module)
    for callback in callbacks_of(trainer, WeightAveraging):
        if callback._average_model is not None:
            trainer.precision_plugin.convert_module(callback._average_model)
