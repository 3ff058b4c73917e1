"""`Sight`: whether the gradients of a cascade's survivors show where to go."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.ascend import gradient_of
from ..objectives.losses import Margin
from ..parts.unexplained import unexplained
from ..threats.ball import Ball
from ..threats.l2 import L2
from .survivors import QUERIES_PER_PASS, SOFTNESS, Survivors, without

_NOWHERE = 0.98  # of the first margin left after all climbs
_SAME = 1e-3  # of the first margin, the difference of two answers that are the same
# A part of the change that the gradient does not say, when so many steps go so far towards random points of the threat:
# one step for all, more for those that it shows something of, shorter ones where it may have been a bend.
_HIDDEN = 0.3
_LOOKS = ((1, 0.01), (7, 0.01), (8, 0.001))
_LOOK_AROUND = -7  # of the noise, which no climb draws


class Sight:
    """Which survivors need a search without gradients.

    Args:
        survivors: the samples, after their first climb.
    """

    def __init__(self, survivors: Survivors) -> None:
        self._survivors = survivors
        self._hiding: Tensor | None = None  # whose gradient says too little of how the gain changes, once looked at

    def blind(self, rows: Tensor) -> Tensor:
        """Those of the survivors whose gain changes beyond its gradient, or whose gradient leads nowhere: int64 `(M,)`.

        The gain may jump, or the gradient hide a part of how it changes; or it vanishes, brings hardly anything, or
        turns round.
        """
        rows = self._survivors.standing(rows)
        if self._hiding is None:
            self._hiding = torch.zeros_like(self._survivors.fallen)
            self._hiding[self.with_hidden_slopes(rows)] = True
        beyond = rows[(self._survivors.first_climb.jumps | self._hiding)[rows]]
        beyond = beyond[self._answers_again(beyond)]
        return torch.cat([beyond, self._without_direction(without(rows, beyond))]).sort().values

    def _answers_again(self, rows: Tensor) -> Tensor:
        """Whether the model answers the same twice, and does not change by the numbers it draws: bool `(M,)`."""
        if not len(rows):
            return rows.bool()
        with torch.no_grad():
            once, again = (self._survivors.gaps(self._survivors.best[rows], rows).amax(1) for _ in range(2))
        return (once - again).abs() <= -_SAME * self._survivors.first[rows]

    @torch.no_grad()
    def with_hidden_slopes(self, rows: Tensor) -> Tensor:
        """Whose gain changes around its first point by what the gradient there does not say: int64 `(M,)`."""
        survivors, first_look = self._survivors, self._survivors.first_climb.first_look
        if first_look is None:
            return rows[:0]
        for number, part in _LOOKS:
            rows = survivors.affordable(rows, num_steps=number / QUERIES_PER_PASS)
            if not len(rows):
                break
            (points, gains, slopes), changes, moves = (seen[rows] for seen in first_look), [], []
            threat, rng = survivors.threat.take(rows), survivors.rng.take(rows).fold(_LOOK_AROUND)
            for look in range(number):
                there = points + part * (threat.start(survivors.x[rows], rng.fold(look)) - points)
                moves.append(there - points)  # as rounded: a small part of a small eps is lost in the pixels
                changes.append(survivors.soft_gain(survivors.gaps(there, rows), rows, SOFTNESS) - gains)
            survivors.num_passes[rows] += number / QUERIES_PER_PASS
            rounded = survivors.first_climb.rounding()[rows]
            rows = rows[unexplained(torch.stack(changes), slopes, torch.stack(moves), rounded) > _HIDDEN]
        return rows

    def _without_direction(self, rows: Tensor) -> Tensor:
        """Whose gradient vanishes, leads nowhere, or turns round within a twentieth of eps: int64 `(M,)`."""
        survivors, first_look = self._survivors, self._survivors.first_climb.first_look
        rows = survivors.affordable(rows, num_steps=2)
        assert isinstance(survivors.threat, Ball)
        left = survivors.climbed / survivors.first
        is_flat = left >= 0.8
        if first_look is not None:  # without any gradient the random start alone may have brought a sample on
            is_flat |= ~survivors.threat.masked(first_look[2], 0.0).flatten(1).any(1)
        rows = rows[is_flat[rows]]
        if not len(rows):
            return rows
        threat, x = survivors.threat.take(rows), survivors.x[rows]
        start, grads = threat.start(x, survivors.noise(rows)), []
        for points in (start, start + 0.05 * (x - start)):
            leaf = points.clone().requires_grad_()
            grad = gradient_of(Margin()(survivors.model(leaf), survivors.y[rows]), leaf)
            grads.append(threat.masked(grad, 0.0).flatten(1))
        survivors.num_passes[rows] += 2
        # Of unit length, since torch's cosine takes what is shorter than 1e-8 for nothing.
        one, other = (L2(eps=1).direction(grad) for grad in grads)
        turns = torch.cosine_similarity(one, other) < 0.5
        return rows[turns | (left[rows] >= _NOWHERE)]
