"""`climb_closing_in`: a climb inside L1 in a ball that closes in on the threat, by one of two kinds of steps.

`to_corner`: towards the corner of ball and box that lies farthest along the gradient. A point on the way between points
of ball and box stays inside both, so that a step may be as long as the ball is wide and still changes few pixels, by as
much as the box allows. Where many units are at rest (thresholds, saturation), such changes wake them and small ones do
not.

`along_gradient`: along the ball's own direction, by sizes that fall along a cosine. Where the margin bends, such
changes of more pixels by less lead farther.

Source: Frank and Wolfe, "An algorithm for quadratic programming", 1956; for attacks, Chen et al., "A Frank-Wolfe
framework for efficient and effective adversarial attacks", 2020; the corner of ball and box, and larger balls to begin
in, Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..core.ascend import Measure, cosine_steps, gradient_of
from ..core.per_sample import leave_every, per_sample, wide
from ..threats.l1 import L1

Step = Callable[[Tensor, Tensor, Tensor, L1, int, int], Tensor]
"""`step(here, grad, x, ball, number, num_steps) -> target`: where to go in a ball, at which of how many steps."""

_SHRUNK = 0.7  # the share of the steps after which the ball is that of the threat
_LEAST = 0.1  # the share of the way to the corner that the last steps go, of that of the first


def to_corner(reach: float) -> Step:
    """Steps of a share of the way to the corner, which falls from `reach`, in (0, 1], to a tenth of it."""

    def step(here: Tensor, grad: Tensor, x: Tensor, ball: L1, number: int, num_steps: int) -> Tensor:
        return torch.lerp(here, ball.corner(grad, x), reach * max(_LEAST, 1 - number / num_steps))

    return step


def along_gradient(here: Tensor, grad: Tensor, x: Tensor, ball: L1, number: int, num_steps: int) -> Tensor:
    """A step along the ball's direction, of a size that falls from twice the ball's radius to nothing."""
    return here + per_sample(cosine_steps(num_steps)(number, ball), x) * ball.direction(grad)


def climb_closing_in(
    measure: Measure, x: Tensor, *, start: Tensor, threat: L1, factor: float, step: Step, num_steps: int
) -> Tensor:
    """Climbs `measure`'s gain; a sample leaves as soon as it reaches the goal inside the threat.

    Args:
        measure: the gain to climb, and whether the goal is reached, for a batch of points.
        x: the unchanged samples, float `(N, ...)`.
        start: where to begin, inside `factor` times eps, `(N, ...)`.
        threat: what the points must come to lie in.
        factor: the radius of the first ball, in units of eps, at least 1.
        step: the kind of steps.
        num_steps: how many gradient steps, at least 1.

    Returns:
        The points at the end, inside the threat, `(N, ...)`.
    """
    points, rows, here, everyone, whole = start.clone(), torch.arange(len(x), device=x.device), start, x, threat
    fallen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for number in range(num_steps):
        here = here.detach().requires_grad_()
        gain, reached = measure(here, rows)
        grad = gradient_of(gain, here)
        with torch.no_grad():
            here = here.detach()
            eps = threat.radii(x)
            fallen = fallen | reached & (threat.distance(here, x).to(eps) <= eps)
            to_come = (number + 1) / num_steps
            ball = threat.resized(eps * max(1.0, factor ** (1 - to_come / _SHRUNK)))
            moved = ball.project(step(here, grad, x, ball, number, num_steps), x)
            here = torch.where(wide(fallen, x), here, moved)
            if number % leave_every(x.device) == 0 and bool(fallen.any()):
                keep = ~fallen
                points[rows[fallen]] = here[fallen]
                rows, here, x, threat, fallen = rows[keep], here[keep], x[keep], threat.take(keep), fallen[keep]
                if not len(rows):
                    break
    points[rows] = here
    return whole.project(points, everyone)
