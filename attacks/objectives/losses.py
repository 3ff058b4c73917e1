"""How well one class is recognised, as a loss per sample: what an objective lets the attack climb."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(ABC):
    """A loss per sample: the larger, the less `label` is recognised; a subclass is a frozen dataclass."""

    min_classes: ClassVar[int] = 2
    """How many classes a model must have for this loss to mean something."""

    def check_classes(self, num_classes: int) -> None:
        """Raises ValueError where the loss cannot be had of a model with so many classes."""
        if num_classes < self.min_classes:
            raise ValueError(
                f"{type(self).__name__}() needs a model of {self.min_classes} classes or more, this one has "
                f"{num_classes}; Margin() works for any number"
            )

    @abstractmethod
    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Args: logits float `(N, C)`; label int64 `(N,)`. Returns: float `(N,)`."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """`-log softmax(logits)[label]`; its gradient vanishes where the model is very sure."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits, label, reduction="none")


@dataclass(frozen=True)
class Margin(Loss):
    """The largest other logit minus the label's: positive exactly where another class wins.

    Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, their f_6 without the
    cut at 0, so that the gradient never vanishes.
    """

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        own = logits.gather(1, label[:, None])
        others = logits.scatter(1, label[:, None], -torch.inf)
        return others.amax(1) - own[:, 0]
