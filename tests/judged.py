"""What the tests of the judge share: an attack and a model that do what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from touchstone.attacks import PGD, Attack, Linf, Objective, SampleRng, Threat, Untargeted

LINF = Linf(eps=0.1)
PGD_5 = PGD(threat=LINF, num_steps=5)


@dataclass(frozen=True, eq=False)
class Custom(Attack):
    """An attack that does what the test wants."""

    perturbation: Callable[..., Any]
    threat: Threat = LINF
    objective: Objective = Untargeted()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Any:
        return self.perturbation(model, x, y)


class Called(nn.Module):
    """A model that is a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)
