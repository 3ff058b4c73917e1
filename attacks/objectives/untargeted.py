"""`Untargeted`: any wrong class will do."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..core.logits import predicted
from ..core.objective import Objective
from .losses import CrossEntropy, Loss, check_loss


@dataclass(frozen=True)
class Untargeted(Objective):
    """The attacker wants any wrong class.

    Args:
        loss: what is climbed: the loss of the true class.
    """

    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_loss(self, self.loss)

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.loss(logits, y)

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return predicted(logits) != y

    def check_classes(self, num_classes: int) -> None:
        self.loss.check_classes(num_classes)
