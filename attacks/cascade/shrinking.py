"""`climb_shrinking`: a climb in a large ball that shrinks to the nearest point found, down to the threat.

Where the boundary is out of sight from inside the threat (thresholds, saturated units), gradients point to it from
beyond it.

Source: Rony et al., "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks", 2019 (a
radius of each sample's own, smaller after a success and larger after a failure), and Pintor et al., "Fast
minimum-norm adversarial attacks through adaptive norm constraints", 2021, algorithm 1 (in any norm, by rates that fall
along a cosine). Unlike theirs it begins at a random point of a ball that is far too large.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.ascend import Measure, gradient_of
from ..core.per_sample import leave_every, per_sample, wide
from ..threats.ball import Ball

_RATE = 0.2  # by how much of itself the ball changes at the first step
_LAST = 0.05  # the share of the ball that the last step covers


def climb_shrinking(
    measure: Measure, x: Tensor, *, start: Tensor, radius: Tensor, threat: Ball, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Climbs `measure`'s gain in balls that are never smaller than the threat.

    A sample leaves as soon as it reaches the goal inside the threat.

    Args:
        measure: the gain to climb, and whether the goal is reached, for a batch of points.
        x: the unchanged samples, float `(N, ...)`.
        start: where to begin, inside the first balls, `(N, ...)`.
        radius: the radius of each sample's first ball, `(N,)`.
        threat: what the points must come to lie in.
        num_steps: how many gradient steps, at least 1.

    Returns:
        The points at the end, inside the threat, `(N, ...)`; the nearest ones seen that reach the goal, `(N, ...)`;
        and their distances, `(N,)`, infinite where there is none.
    """
    points, nearest = start.clone(), start.clone()
    distance = torch.full_like(radius, torch.inf)
    rows, here, everyone, whole = torch.arange(len(x), device=x.device), start, x, threat
    for step in range(num_steps):
        here = here.detach().requires_grad_()
        gain, reached = measure(here, rows)
        grad = gradient_of(gain, here)
        with torch.no_grad():
            here = here.detach()
            length = threat.distance(here, x).to(radius)
            better = reached & (length < distance[rows])
            # By `where`: an accelerator would have to be waited for, to know how many they are.
            nearest[rows] = torch.where(wide(better, x), here, nearest[rows])
            distance[rows] = torch.where(better, length, distance[rows])
            phase = (1 + math.cos(math.pi * step / num_steps)) / 2
            shrunk, grown = length.minimum(radius) * (1 - _RATE * phase), radius * (1 + _RATE * phase)
            least = threat.radius(radius)
            radius = torch.where(reached, shrunk, grown).maximum(least)
            radius = radius.floor() if threat.whole_eps else radius
            ball = threat.resized(radius)
            size = (_LAST + (1 - _LAST) * phase) * radius
            moved = ball.project(here + per_sample(size, x) * ball.direction(grad), x)
            fallen = distance[rows] <= least
            here = torch.where(wide(fallen, x), here, moved)
            if step % leave_every(x.device) == 0 and bool(fallen.any()):
                keep = ~fallen
                rows, here, x, radius, threat = rows[keep], here[keep], x[keep], radius[keep], threat.take(keep)
                if not len(rows):
                    break
    points[rows] = here
    fallen = distance <= whole.radius(distance)
    return whole.project(torch.where(wide(fallen, everyone), nearest, points), everyone), nearest, distance
