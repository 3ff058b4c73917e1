"""`DeepFool`: step by step over the nearest boundary of the linearised model.

Source: Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks",
2016, algorithm 2, and equations 10 and 11 for norms other than L2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_positive

from .core.ascend import gradient_of
from .core.attack import Attack
from .core.per_sample import per_sample, wide
from .core.sample_rng import SampleRng
from .parts.minimal import inside
from .threats.l2 import L2
from .threats.linf import Linf

_NUDGE = 1e-6
"""Added to each step, in widths of the box, so that a sample that lies on a boundary crosses it."""


@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """Crosses the nearest boundary of the linearised model until the class switches: a small change in few steps.

    It finds a point near the sample whatever eps is. One that lies outside the threat is projected.

    Args:
        threat: what the attacker may do, Linf or L2.
        num_steps: linearisations at most, >= 1.
        num_classes: the classes with the largest logits, the true one among them, whose boundaries are looked at,
            >= 2; one gradient for each but the true one.
        overshoot: how much farther than the boundary to go, as a share of the change, >= 0.

    Raises:
        ValueError: a value is outside its range, or the threat is not one of `supports`.
    """

    supports = (Linf, L2)
    threat: Linf | L2
    num_steps: int = 50
    num_classes: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps")
        check_counts(self, "num_classes", least=2)
        check_positive(self, "overshoot", or_zero=True)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        points, change = x.clone(), torch.zeros_like(x)
        rows = torch.arange(len(x), device=x.device)  # the samples that have not fallen
        for _ in range(self.num_steps):
            # Asked without gradients first: a sample that has fallen would cost one for each class.
            with torch.no_grad():
                rows = rows[~self.objective.reached(model(points[rows]), y[rows])]
            if not len(rows):
                break
            change[rows] += self.take(rows).step(model, points[rows], y[rows])
            points[rows] = self.threat.clip(x[rows] + (1 + self.overshoot) * change[rows])
        return inside(self.threat, points, x)

    def step(self, model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
        """The shortest change that crosses a boundary of the model linearised at `points`, `(N, ...)`."""
        points = points.detach().requires_grad_()
        logits = model(points)
        others = logits.detach().scatter(1, y[:, None], -torch.inf)
        others = others.topk(min(self.num_classes, logits.shape[1]) - 1, dim=1).indices
        gaps = logits.gather(1, others) - logits.gather(1, y[:, None])  # negative: the true class is ahead
        gaps = gaps.to(points.dtype)
        shortest = torch.full_like(gaps[:, 0].detach(), torch.inf)
        change = torch.zeros_like(points)
        for rank in range(gaps.shape[1]):
            grad = gradient_of(gaps[:, rank], points, keep_graph=rank + 1 < gaps.shape[1])
            direction = self.threat.direction(grad)
            slope = (grad * direction).flatten(1).sum(1)  # the dual norm of the gradient
            length = torch.where(slope > 0, -gaps[:, rank].detach() / slope, torch.inf)
            nearer = length < shortest
            shortest = torch.where(nearer, length, shortest)
            move = per_sample(length + _NUDGE * self.threat.width, points) * direction
            change = torch.where(wide(nearer, points), move, change)
        return change
