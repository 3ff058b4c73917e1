"""`with_schedule`: an optimizer and what changes its learning rate, as Lightning takes them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer


def with_schedule(optimizer: Optimizer, scheduler: Any, interval: str) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns, with the figure that a scheduler waits for, which steps every `interval`."""
    schedule = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, ReduceLROnPlateau):
        schedule["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]
