"""How well one class is recognised, as a loss per sample: what an objective lets the attack climb.

A new loss defines `__call__`; it defines `towards` as well where the way towards a class is more than the opposite of
the way away from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.one_each import check_one_each

_TINY = 1e-12
"""Added to what is divided by, where logits may be equal; as in the code of Croce and Hein."""


class Loss(ABC):
    """A loss per sample: the larger, the less `label` is recognised; a subclass is a frozen dataclass."""

    min_classes: ClassVar[int] = 2
    """How many classes a model must have for this loss to mean something."""
    min_classes_towards: ClassVar[int] = 2
    """The same for `towards`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_one_each(cls, __call__="float", towards="float")

    def check_classes(self, num_classes: int, *, towards: bool = False) -> None:
        """Raises ValueError where the loss, or its way `towards` a class, needs a model of more classes."""
        least = self.min_classes_towards if towards else self.min_classes
        if num_classes < least:
            raise ValueError(
                f"{type(self).__name__}(){' towards a class' if towards else ''} needs a model of {least} classes or "
                f"more, this one has {num_classes}; Margin() works for any number"
            )

    @abstractmethod
    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Args: logits float `(N, C)`; label int64 `(N,)`. Returns: float `(N,)`."""

    def towards(self, logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
        """What grows on the way from `label` to `target`, int64 `(N,)` both: by itself, how well `target` is seen."""
        return -self(logits, target)


def check_loss(owner: object, loss: object) -> None:
    """Raises ValueError where an objective was given no `Loss`."""
    if not isinstance(loss, Loss):
        raise ValueError(f"{type(owner).__name__}(loss=...) must be a loss such as Margin(), got {loss!r:.80}")


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """`-log softmax(logits)[label]`; its gradient vanishes where the model is very sure.

    Towards a class it is the log-probability of that class.
    """

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


@dataclass(frozen=True)
class ProbabilityMargin(Loss):
    """The largest other probability minus the label's, in [-1, 1].

    It leaves samples alone that are far on either side of the boundary, and climbs most where two classes are close.

    Source: Xie et al., "Towards million-scale adversarial robustness evaluation with stronger individual attacks",
    2024, the probability margin loss of PMA.
    """

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return Margin()(logits.softmax(1), label)


@dataclass(frozen=True)
class DLR(Loss):
    """The margin over a difference of the largest logits, so that scaling the logits changes nothing.

    Away from a class: over the difference of the largest and the third logit, which takes 3 classes. Towards a class:
    over that of the largest and the mean of the third and fourth, which takes 4.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", 2020, equations 6 and 7.
    """

    min_classes: ClassVar[int] = 3
    min_classes_towards: ClassVar[int] = 4

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        self.check_classes(logits.shape[1])
        first, _, third = logits.topk(3, dim=1).values.unbind(1)
        return Margin()(logits, label) / (first - third + _TINY)

    def towards(self, logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
        self.check_classes(logits.shape[1], towards=True)
        first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
        gap = (logits.gather(1, target[:, None]) - logits.gather(1, label[:, None]))[:, 0]
        return gap / (first - (third + fourth) / 2 + _TINY)
