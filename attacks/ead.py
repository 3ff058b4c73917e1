"""`EAD`: the smallest L1 change, by iterative shrinkage of an elastic net.

Source: Chen et al., "EAD: elastic-net attacks to deep neural networks via adversarial examples", 2018, algorithm 1
with equations 7 and 8, and the decision rules of their section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from touchstone.options import check_choice, check_positive

from .core.ascend import gradient_of
from .core.objective import Objective
from .core.per_sample import norms
from .objectives.untargeted import Untargeted
from .parts.minimal import with_margin
from .parts.weighed import Step, Weighed
from .threats.l1 import L1

Rule = Literal["l1", "elastic net"]


@dataclass(frozen=True, kw_only=True)
class EAD(Weighed):
    """Minimises an elastic net of the change plus a weighted hinge on the margin, with the weight searched per sample.

    In few steps the defaults hardly turn a robust net: by 100 steps in 6 rounds 1 of 16 digits of a net trained with
    TRADES, where `step_size=0.1, first_weight=1` turns all of them.

    Args:
        threat: what the attacker may do, L1.
        objective: what the attacker wants; its loss is not used, but its margin.
        num_steps: steps in each round, >= 1.
        num_rounds: weights tried for each sample, >= 1.
        step_size: of the gradient steps, falling with the square root of the steps left, > 0.
        first_weight: the weight of the margin in the first round, > 0.
        penalty: the weight of the L1 change beside the squared L2 change (beta), which is also the change below which
            a pixel stays as it is, > 0. The unit of all changes is the width of the box.
        confidence: the margin that a point must have to count as found, >= 0.
        rule: which of the points found is the best: the one with the smallest `"l1"` change or `"elastic net"`.
        minimal: whether to search on for the smallest change; otherwise a sample is done as soon as a point inside
            the threat is found.

    Raises:
        ValueError: a value is outside its range, or the threat is not one of `supports`.
    """

    supports = (L1,)
    threat: L1
    objective: Objective = Untargeted()
    num_steps: int = 1000
    num_rounds: int = 9
    step_size: float = 0.01
    first_weight: float = 1e-3
    penalty: float = 0.01
    confidence: float = 0.0
    rule: Rule = "l1"
    minimal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "penalty")
        check_choice("EAD(rule=...)", self.rule, get_args(Rule))

    def descent(self, model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Step:
        objective, width = with_margin(self.objective), self.threat.width
        points, ahead = x.clone(), x.clone()  # `ahead` runs before the points, as Nesterov's method does

        def step(rows: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            aimed, labels, here = objective.take(rows), y[rows], ahead[rows].requires_grad_()
            hinge = (self.confidence - aimed.gain(model(here), labels)).clamp_min(0).to(here.dtype)
            loss = weight[rows] * hinge + ((here - x[rows]) / width).flatten(1).square().sum(1)
            grad = width**2 * gradient_of(loss, here)  # of a step in a box of width 1, and that step in this box
            with torch.no_grad():
                step_size = self.step_size * (1 - number / self.num_steps) ** 0.5
                moved = self._shrink(here - step_size * grad, x[rows], rows)
                ahead[rows] = moved + number / (number + 3) * (moved - points[rows])
                points[rows] = moved
                logits = model(moved)
                reached = aimed.reached(logits, labels) & (aimed.gain(logits, labels) >= self.confidence)
                return moved, reached, self._size((moved - x[rows]) / width), loss.detach()

        return step

    def _shrink(self, points: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """Takes `penalty` of the box's width from every change, at most all of it, and clips to the box: equation 8."""
        change = points - x
        shrunk = change.sign() * (change.abs() - self.penalty * self.threat.width).clamp_min(0)
        threat = self.threat.take(rows)
        return threat.masked(threat.clip(x + shrunk), x)

    def _size(self, change: Tensor) -> Tensor:
        l1 = norms(change, 1)
        return l1 if self.rule == "l1" else self.penalty * l1 + norms(change).square()
