"""What attacks share that search the nearest point that reaches the objective, and not one inside a given eps."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from ..core.objective import Objective
from ..core.per_sample import answers_at_once, leave_every, wide
from ..core.threat import Threat
from ..objectives.losses import Margin

_PROGRESS = 0.9999
"""A descent ends for a sample whose loss has not fallen below this share of what it was a tenth of the steps before."""


def with_margin(objective: Objective) -> Objective:
    """The same objective with a gain that is positive exactly where it is reached.

    Raises:
        ValueError: it has no loss to exchange.
    """
    if not hasattr(objective, "loss"):
        raise ValueError(
            f"the objective must have a loss, as Untargeted() or Targeted(target=7) have, got {objective!r}"
        )
    return replace(objective, loss=Margin())  # type: ignore[type-var]


def inside(threat: Threat, points: Tensor, x: Tensor) -> Tensor:
    """`points` where they lie inside the threat, to the last bit, and their projection elsewhere."""
    return torch.where(wide(threat.contains(points, x), x), points, threat.project(points, x))


class Nearest:
    """Of each sample the nearest point seen so far that reaches the objective; points inside the threat come first.

    Args:
        threat: what the attacker may do.
        x: the unchanged samples, float `(N, ...)`.
        minimal: whether nearer points are of use after one inside the threat is known; otherwise the first is kept.

    Attributes:
        points: the one kept so far, `(N, ...)`; `x` where there is none.
        size: what they are ranked by, float `(N,)`; infinite where there is none.
        inside: whether there is one inside the threat, bool `(N,)`.
    """

    def __init__(self, threat: Threat, x: Tensor, *, minimal: bool = True) -> None:
        self.threat, self.x, self.points, self.minimal = threat, x, x.clone(), minimal
        self.size = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.inside = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def see(self, rows: Tensor, points: Tensor, reached: Tensor, size: Tensor | None = None) -> None:
        """Keeps what is better than before.

        Args:
            rows: the samples these points belong to, int64 `(M,)`.
            points: new points, `(M, ...)`.
            reached: which of them reach the objective, bool `(M,)`.
            size: what they are ranked by, float `(M,)`; None for the distance in the threat's norm.
        """
        if answers_at_once(points.device):  # of what has not reached it, nothing need be measured
            rows, points, size = rows[reached], points[reached], None if size is None else size[reached]
            reached = reached[reached]
        threat, x, was_inside, best = self.threat.take(rows), self.x[rows], self.inside[rows], self.size[rows]
        size = (threat.distance(points, x) if size is None else size).to(best)
        now_inside = threat.contains(points, x)
        better = (now_inside & ~was_inside) | ((now_inside == was_inside) & (size < best))
        better &= reached if self.minimal else reached & ~was_inside
        self.points[rows] = torch.where(wide(better, points), points, self.points[rows])
        self.size[rows], self.inside[rows] = torch.where(better, size, best), was_inside | (better & now_inside)

    def wanted(self, rows: Tensor, step: int = 0) -> Tensor:
        """Those of the samples, int64 `(M,)`, for which a nearer point is of use.

        Args:
            rows: which samples to choose from, int64 `(M,)`.
            step: how many steps they have gone on; between those at which an accelerator is asked, all are wanted.
        """
        return rows if self.minimal or step % leave_every(rows.device) else rows[~self.inside[rows]]

    def result(self) -> Tensor:
        """The best points, projected where they lie outside the threat; a sample without one stays as it is."""
        return inside(self.threat, self.points, self.x)


class Progress:
    """Ends a descent for samples whose loss no longer falls: it is looked at ten times."""

    def __init__(self, like: Tensor, num_steps: int) -> None:
        self._every, self._before = ceil(num_steps / 10), torch.full_like(like, torch.inf)

    def still_falling(self, rows: Tensor, loss: Tensor, step: int) -> Tensor:
        """Those of the samples, int64 `(M,)` with losses `(M,)`, that go on after this step, counted from 0."""
        if step % self._every:
            return rows
        falls = loss < _PROGRESS * self._before[rows]
        self._before[rows] = loss
        return rows[falls]


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1) for points of which some may have stopped."""

    def __init__(self, like: Tensor, step_size: float) -> None:
        self._step_size, self._num_steps = step_size, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, grad: Tensor, rows: Tensor) -> Tensor:
        """What to add to the points of `rows`, `(M, ...)`, to descend along `grad`; every call must have them left."""
        self._num_steps += 1
        mean = self._mean[rows] = 0.9 * self._mean[rows] + 0.1 * grad
        square = self._square[rows] = 0.999 * self._square[rows] + 0.001 * grad.square()
        mean, square = mean / (1 - 0.9**self._num_steps), square / (1 - 0.999**self._num_steps)
        return -self._step_size * mean / (square.sqrt() + 1e-8)
