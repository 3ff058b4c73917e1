"""`Endless`: what another objective climbs, and never reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.objective import Objective
from ..core.sample_rng import SampleRng


@dataclass(frozen=True)
class Endless(Objective):
    """What another objective climbs, and never reached: the attack goes on to its last step, whatever falls.

    Args:
        objective: what is climbed.
    """

    objective: Objective

    def __post_init__(self) -> None:
        object.__setattr__(self, "of_texts", self.objective.of_texts)

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.objective.gain(logits, y)

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)  # of a text too, where y is `(N, T)`

    def correct(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.objective.correct(logits, y)

    def aim(self, clean_logits: Callable[[], Tensor], y: Tensor, rng: SampleRng) -> Endless:
        return Endless(self.objective.aim(clean_logits, y, rng))

    def check_classes(self, num_classes: int) -> None:
        self.objective.check_classes(num_classes)
