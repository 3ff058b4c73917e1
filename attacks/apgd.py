"""`APGD`: projected gradient ascent that sets its own step size.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", 2020, algorithm 1 (Linf, L2); Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", 2021, algorithm 1 (L1). `parts/adaptive.py` holds the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_numbers

from .core.ascend import Measure
from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.gain import gain_of
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.towards import check_targets, towards_nearest
from .objectives.untargeted import Untargeted
from .parts.adaptive import HalvingClimb, SparseClimb, climb
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Projected gradient ascent whose steps shorten by themselves, for each sample by the progress of its climb.

    The standard long gradient attack: there is no step size to choose. Inside Linf and L2 steps begin at twice eps
    and are halved where the gain no longer grows. Inside L1 they are of eps, and shorten where the best point gets no
    sparser; each changes only the pixels with the largest gradients, ever fewer of them, and the climb begins in balls
    of 3 and 2 times eps.

    Args:
        threat: what the attacker may do.
        objective: what the attacker wants.
        num_steps: gradient steps per restart, >= 1.
        num_restarts: random starts tried for each sample and target, >= 1.
        num_targets: 0 climbs the objective itself; above 0, towards so many of the nearest classes in turn, any wrong
            class counting (APGD-T; `Untargeted(loss=DLR())` is the original's loss).
        num_eot_samples: forwards and gradients averaged at each step, >= 1, for a model that draws random numbers
            (`gain_of`).
        rho: the share of steps that must have raised the gain since the last look, in (0, 1); else the step is
            halved. Linf and L2 only.

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> apgd_ce = APGD(threat=Linf(eps="8/255"))
        >>> apgd_t = APGD(threat=Linf(eps="8/255"), objective=Untargeted(loss=DLR()), num_targets=9)
    """

    supports: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    threat: Threat
    objective: Objective = Untargeted()
    num_steps: int = 100
    num_restarts: int = 1
    num_targets: int = 0
    num_eot_samples: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_restarts", "num_eot_samples")
        check_counts(self, "num_targets", least=0)
        check_targets("APGD(num_targets=...)", self.objective, self.num_targets)
        check_numbers(self, "rho")
        if not 0 < self.rho < 1:
            raise ValueError(f"APGD(rho=...) must be in (0, 1), got {self.rho:g}")

    def check_classes(self, num_classes: int) -> None:
        if isinstance(self.objective, Untargeted) and self.num_targets:
            self.objective.loss.check_classes(num_classes, towards=True)  # first: it may need more
        self.objective.check_classes(num_classes)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        if self.num_restarts == 1 and self.num_targets == 0:
            return self._climb(self._measure(model, y), x, rng)
        one = replace(self, num_restarts=1, num_targets=0)
        goals = towards_nearest(self.objective, self.num_targets, model, x, y)
        climbs = [replace(one, objective=goal) for goal in goals for _ in range(self.num_restarts)]
        return attack_in_sequence(climbs, self._measure(model, y), model, x, y, rng)

    def _measure(self, model: nn.Module, y: Tensor) -> Measure:
        return gain_of(model, self.objective, y, num_eot_samples=self.num_eot_samples)

    def _climb(self, measure: Measure, x: Tensor, rng: SampleRng) -> Tensor:
        """One restart: the first point that reached the objective, or else the one with the largest gain."""
        threat = self.threat
        if not isinstance(threat, L1):
            assert isinstance(threat, Linf | L2)
            return climb(measure, HalvingClimb.begin(x, threat.start(x, rng), threat, self.rho), self.num_steps)

        def only_gain(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return measure(points, rows)[0], torch.zeros(len(rows), dtype=torch.bool, device=x.device)

        points, part = x + threat.width * rng.normal(x), 3 * self.num_steps // 10
        for factor, num_steps in ((3, part), (2, part), (1, self.num_steps - 2 * part)):
            ball = threat.resized(factor * threat.radii(x))
            points = ball.project(points, x)
            if num_steps:
                begin = SparseClimb.begin(x, points, ball)
                points = climb(measure if factor == 1 else only_gain, begin, num_steps)
        return points
