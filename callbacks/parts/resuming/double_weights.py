"""`widen_before_loading`: weights of a checkpoint in float64 are loaded as they are."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision import DoublePrecision


def widen_before_loading(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Puts the module in float64 where the trainer is about to.

    Lightning does so only after it has loaded the checkpoint, which float32 parameters have rounded by then. One in
    fewer bits loses none in them.
    """
    if isinstance(trainer.precision_plugin, DoublePrecision):
        trainer.precision_plugin.convert_module(module)
