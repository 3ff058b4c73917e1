"""`TunedClassifier`: a `Classifier` with what recipes for accuracy ask of the optimizer and the labels."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from .adversarial_training import Learned, Strategy
from .classifier import Classifier
from .parameter_groups import weight_decay_groups


class TunedClassifier(Classifier):
    """Decays weights only, steps its schedule as often as told, and learns from mixed labels.

    Weight decay leaves normalizations and biases alone (`weight_decay_groups`). Labels may be shares of classes,
    float `(N, classes)`, as MixUp and CutMix make them; `train/accuracy` then counts the largest share.

    Args:
        net: as in `Classifier`.
        optimizer: makes the optimizer from groups of parameters.
        lr_scheduler: makes the scheduler from the optimizer; None for none.
        label_smoothing: as in `Classifier`.
        strategy: as in `Classifier`.
        schedule: whether the scheduler steps after every optimizer `"step"`, as one-cycle and a warm-up demand, or
            after every `"epoch"`.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        *,
        label_smoothing: float = 0.0,
        strategy: Strategy | None = None,
        schedule: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__(net, optimizer, lr_scheduler, label_smoothing=label_smoothing, strategy=strategy)
        if schedule not in ("step", "epoch"):
            raise ValueError(f"TunedClassifier(schedule=...) must be step or epoch, got {schedule!r}")
        self.schedule = schedule

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(weight_decay_groups(self))
        if self.make_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_scheduler(optimizer), "interval": self.schedule}
        return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]

    def _log(self, stage: str, metrics: str, measured: Learned | None, y: Tensor) -> None:
        super()._log(stage, metrics, measured, y if y.ndim == 1 else y.argmax(1))
