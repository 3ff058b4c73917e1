"""How well one class is recognised, as a loss per sample: what an objective lets the attack climb."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(ABC):
    """A loss per sample: the larger, the less `label` is recognised; a subclass is a frozen dataclass."""

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
