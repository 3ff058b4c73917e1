"""`AnyOf`: the attacker wants one of several classes, and does not mind which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from touchstone.options import is_whole_number

from ..core.logits import predicted
from ..core.objective import Objective
from .losses import CrossEntropy, Loss, check_loss


@dataclass(frozen=True, eq=False)
class AnyOf(Objective):
    """The attacker wants one of several classes, and does not mind which.

    A sample whose true class is among them is to be turned into one of the others.

    Args:
        targets: a list or tuple of two or more classes.
        loss: what is climbed: its way `towards` whichever of the classes is the easiest at that point.

    Raises:
        ValueError: `targets` are no list of two or more different classes.

    Example:
        >>> PGD(threat=Linf(eps=8 / 255), objective=AnyOf([281, 282, 285]))  # some cat
    """

    targets: Sequence[int]
    loss: Loss = field(default=CrossEntropy(), kw_only=True)

    def __post_init__(self) -> None:
        check_loss(self, self.loss)
        is_list = isinstance(self.targets, Sequence) and not isinstance(self.targets, str)
        whole = is_list and all(is_whole_number(target) for target in self.targets)
        if not whole or len({*map(int, self.targets)}) < 2 or min(self.targets) < 0:
            raise ValueError(
                f"AnyOf(targets=...) must be a list of two or more different classes, numbers >= 0, got "
                f"{self.targets!r:.80}; for one class take Targeted"
            )
        object.__setattr__(self, "targets", tuple(dict.fromkeys(map(int, self.targets))))

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        ways = [
            self.loss.towards(logits, y, torch.full_like(y, t)).masked_fill(y == t, -torch.inf) for t in self.targets
        ]
        return torch.stack(ways).amax(0)

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        label = predicted(logits)
        return torch.isin(label, label.new_tensor(self.targets)) & (label != y)

    def check_classes(self, num_classes: int) -> None:
        self.loss.check_classes(num_classes, towards=True)
        if max(self.targets) >= num_classes:
            raise ValueError(
                f"AnyOf(targets={self.targets}): the model has {num_classes} classes, 0 to {num_classes - 1}"
            )
