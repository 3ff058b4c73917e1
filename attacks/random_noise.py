"""`RandomNoise`: the control that every attack must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .core.attack import Attack
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Attack):
    """Random points of the threat; of several tries, the first that reaches the objective.

    Args:
        threat: what the attacker may do.
        objective: what the attacker wants.
        num_tries: random points for each sample, >= 1.

    Raises:
        ValueError: `num_tries` is below 1.
    """

    kind = "control"
    threat: Threat
    objective: Objective = Untargeted()
    num_tries: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_tries")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        noisy, rows = x.clone(), torch.arange(len(x), device=x.device)  # rows: the samples that have not fallen
        for number in range(self.num_tries):
            left = self.take(rows)
            noisy[rows] = left.draw(x[rows], rng.take(rows).fold(number))
            if number + 1 == self.num_tries:
                break  # nobody needs to know of the last one: it is what is returned
            with torch.no_grad():
                rows = rows[~left.objective.reached(model(noisy[rows]), y[rows])]
            if not len(rows):
                break
        return noisy

    def draw(self, x: Tensor, rng: SampleRng) -> Tensor:
        """One try: a random point of the threat around each of these samples, `(N, ...)`."""
        return self.threat.start(x, rng)
