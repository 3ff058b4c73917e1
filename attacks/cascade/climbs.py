"""`Climbs`: kinds of climbs and searches, for those survivors whose budget allows them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor

from ..apgd import APGD
from ..core.ascend import ascend, cosine_steps
from ..core.smooth_backward import smooth_backward
from ..objectives.losses import Loss, Margin
from ..objectives.untargeted import Untargeted
from ..pgd import PGD
from ..square import Square
from ..threats.ball import Ball
from ..threats.l1 import L1
from .closing_in import along_gradient, climb_closing_in, to_corner
from .gain import ANY, SHARP, Gain
from .shrinking import climb_shrinking
from .survivors import QUERIES_PER_PASS, Survivors

_REFINING_STEPS = 10
_REFINING_QUERIES = 100
_SMALL = 0.1  # of the steps of a climb from elsewhere
_WINDOW = 0.02  # the share of the pixels that a window covers
_ONWARD = 0.25  # first step from the best point: this share of the way to the corner


class Climbs:
    """What can be tried on some of the survivors.

    Each method is given the samples that are to climb, int64 `(M,)`, passes over those whose budget does not last, and
    returns the survivors whom it has brought on.

    Args:
        survivors: the samples, who take in where each climb ends.
    """

    def __init__(self, survivors: Survivors) -> None:
        self._survivors = survivors

    def inside(self, rows: Tensor, *, num_steps: int, gain: Gain = ANY, momentum: float = 0.0) -> Tensor:
        """Climbs from a random start; `momentum` as in `ascend`."""
        rows = self._survivors.affordable(rows, num_steps=num_steps, rank=gain.rank)
        if not len(rows):
            return rows
        threat, x = self._survivors.threat.take(rows), self._survivors.x[rows]
        points, _ = ascend(
            self._survivors.measure(rows, gain),
            x,
            start=threat.start(x, self._survivors.noise(rows)),
            threat=threat,
            num_steps=num_steps,
            step_size=cosine_steps(num_steps),
            momentum=momentum,
        )
        return self._survivors.finish(rows, points, alone=gain.alone)

    def from_afar(self, rows: Tensor, *, num_steps: int, factor: float | None, gain: Gain = ANY) -> Tensor:
        """Climbs in a ball that shrinks to eps: where the boundary is out of sight from inside the threat.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            factor: of eps, the radius of the first ball; None goes on from the nearest point known.
            gain: what is climbed.
        """
        rows = self._survivors.affordable(rows, num_steps=num_steps, rank=gain.rank)
        if not len(rows):
            return rows
        threat, x = self._survivors.threat.take(rows), self._survivors.x[rows]
        assert isinstance(threat, Ball)
        if factor is None:
            radius, start = self._survivors.distance[rows], self._survivors.nearest[rows]
        else:
            radius = factor * threat.radii(x)
            start = threat.resized(radius).start(x, self._survivors.noise(rows))
        points, nearest, distance = climb_shrinking(
            self._survivors.measure(rows, gain), x, start=start, radius=radius, threat=threat, num_steps=num_steps
        )
        self._survivors.see_beyond(rows, nearest, distance)
        return self._survivors.finish(rows, points, alone=gain.alone)

    def by_corners(self, rows: Tensor, *, num_steps: int, factor: float | None, gain: Gain = ANY) -> Tensor:
        """Climbs inside L1 towards corners of ball and box, in a ball that shrinks to eps.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            factor: of eps, the radius of the first ball, where the start is random; None goes on from the best point,
                by shorter steps.
            gain: what is climbed.
        """
        rows = self._survivors.affordable(rows, num_steps=num_steps, rank=gain.rank)
        if not len(rows):
            return rows
        threat, x = self._survivors.threat.take(rows), self._survivors.x[rows]
        assert isinstance(threat, L1)
        start, reach = self._survivors.best[rows], _ONWARD
        if factor is not None:
            larger = threat.resized(factor * threat.radii(x))
            start, reach = larger.project(x + threat.width * self._survivors.noise(rows).normal(x), x), 1.0
        points = climb_closing_in(
            self._survivors.measure(rows, gain),
            x,
            start=start,
            threat=threat,
            factor=factor or 1.0,
            step=to_corner(reach),
            num_steps=num_steps,
        )
        return self._survivors.finish(rows, points, alone=gain.alone)

    def densely(
        self,
        rows: Tensor,
        *,
        num_steps: int,
        factor: float,
        pixels_per_eps: int | None = None,
        gain: Gain = SHARP,
    ) -> Tensor:
        """Climbs inside L1 by more pixels than corners have, in a ball that shrinks to eps.

        Args:
            rows: who climbs, from a random start.
            num_steps: how many steps.
            factor: of eps, the radius of the first ball.
            pixels_per_eps: of the steps, as in `L1`; None for steps along the gradient itself.
            gain: what is climbed.
        """
        rows = self._survivors.affordable(rows, num_steps=num_steps, rank=gain.rank)
        if not len(rows):
            return rows
        threat, x = self._survivors.threat.take(rows), self._survivors.x[rows]
        assert isinstance(threat, L1)
        threat = replace(threat, pixels_per_eps=pixels_per_eps)
        points = climb_closing_in(
            self._survivors.measure(rows, gain),
            x,
            start=threat.resized(factor * threat.radii(x)).start(x, self._survivors.noise(rows)),
            threat=threat,
            factor=factor,
            step=along_gradient,
            num_steps=num_steps,
        )
        return self._survivors.finish(rows, points, alone=gain.alone)

    def sparsely(self, rows: Tensor, *, num_steps: int, loss: Loss, smooth: bool = False) -> Tensor:
        """Climbs a loss inside L1 by ever fewer pixels, from a random start in a larger ball (`APGD`)."""
        apgd = APGD(threat=self._survivors.threat, objective=Untargeted(loss=loss), num_steps=num_steps)
        return self._by_attack(apgd, rows, smooth=smooth)

    def the_likelihood(self, rows: Tensor, *, num_steps: int) -> Tensor:
        """Climbs cross-entropy, which reads all logits: where those of margins are clamped, it has a gradient yet."""
        return self._by_attack(PGD(threat=self._survivors.threat, num_steps=num_steps), rows)

    def _by_attack(self, attack: APGD | PGD, rows: Tensor, *, smooth: bool = False) -> Tensor:
        rows = self._survivors.affordable(rows, num_steps=attack.num_steps)
        if not len(rows):
            return rows
        self._survivors.num_passes[rows] += attack.num_steps
        with smooth_backward() if smooth else nullcontext():
            points = attack.take(rows).perturb(*self._given(rows))
        return self._survivors.finish(rows, points)

    def refine(self, rows: Tensor) -> Tensor:
        """Goes on from the best point, by a short climb of small steps and then by small windows at random places.

        Each goes on where the other is stuck: where every step along the gradient fails, as on a net whose units
        saturate, one of a hundred windows may help, and from there the gradient leads on. For whom the windows have
        brought on it is worth another turn.
        """
        rows = self._survivors.affordable(rows, num_steps=_REFINING_STEPS + _REFINING_QUERIES // QUERIES_PER_PASS)
        if not len(rows):
            return rows
        points, _ = ascend(
            self._survivors.measure(rows, Gain(smooth=True)),
            self._survivors.x[rows],
            start=self._survivors.best[rows],
            threat=self._survivors.threat.take(rows),
            num_steps=_REFINING_STEPS,
            step_size=lambda step, threat: _SMALL * cosine_steps(_REFINING_STEPS)(step, threat),
        )
        self._survivors.finish(rows, points)
        rows = self._survivors.standing(rows)
        if not len(rows) or not self._has_windows():
            return rows[:0]
        square = Square(
            threat=self._survivors.threat.take(rows),
            objective=Untargeted(loss=Margin()),
            num_queries=_REFINING_QUERIES,
            initial_share=_WINDOW,
            schedule_queries=10_000 * _REFINING_QUERIES,  # so that the windows stay as they are
        )
        self._survivors.num_passes[rows] += _REFINING_QUERIES / QUERIES_PER_PASS
        return self._survivors.finish(rows, square.search(*self._given(rows), start=self._survivors.best[rows]))

    def search(self, rows: Tensor, *, num_queries: int, share: float | None = None) -> Tensor:
        """Searches without gradients, by square windows, where the samples are images and the threat has such.

        Args:
            rows: who searches.
            num_queries: how many windows are tried.
            share: None to begin anew; or else to go on from the best point, by windows that at first cover this share
                of the pixels.
        """
        rows = self._survivors.standing(rows)
        if not len(rows) or not self._has_windows():
            return rows[:0]
        threat = self._survivors.threat.take(rows)
        square = Square(threat=threat, num_queries=num_queries, objective=Untargeted(loss=Margin()))
        if share is None:
            return self._survivors.finish(rows, square.perturb(*self._given(rows)))
        square = replace(square, initial_share=share)
        return self._survivors.finish(rows, square.search(*self._given(rows), start=self._survivors.best[rows]))

    def _has_windows(self) -> bool:
        return self._survivors.x.ndim == 4 and isinstance(self._survivors.threat, Square.supports)

    def _given(self, rows: Tensor) -> tuple:
        """What an attack on these samples is given."""
        return self._survivors.model, self._survivors.x[rows], self._survivors.y[rows], self._survivors.noise(rows)
