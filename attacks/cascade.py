"""`Cascade`: kinds of climbs and searches, for those survivors whose budget allows them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor

from .apgd import APGD
from .core.ascend import ascend, cosine_steps
from .core.smooth_backward import smooth_backward
from .objectives.losses import Loss, Margin
from .objectives.untargeted import Untargeted
from .parts.closing_in import along_gradient, climb_closing_in, to_corner
from .parts.shrinking import climb_shrinking
from .parts.sighted import Sighted
from .parts.survivors import QUERIES_PER_PASS
from .pgd import PGD
from .square import Square
from .threats.ball import Ball
from .threats.l1 import L1

_REFINING_STEPS = 10
_REFINING_QUERIES = 100
_SMALL = 0.1  # of the steps of a climb from elsewhere
_WINDOW = 0.02  # the share of the pixels that a window covers
_ONWARD = 0.25  # first step from the best point: this share of the way to the corner


class Cascade(Sighted):
    """The samples of one batch, and what can be tried on some of them; made as `Survivors`."""

    def climb(
        self,
        rows: Tensor,
        *,
        num_steps: int,
        momentum: float = 0.0,
        smooth: bool = False,
        wide: bool = False,
        sharp: bool = False,
        rank: int | None = None,
        alone: bool = False,
    ) -> None:
        """Climbs from a random start.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            momentum: as in `ascend`.
            smooth: whether along gradients that see units at rest (`smooth_backward`).
            wide: whether along gradients that see beyond where units saturate (`past_saturation`).
            sharp: whether a margin over all classes is nearly that over the nearest one.
            rank: None to climb towards any class; 0 towards the nearest one, 1 towards the next.
            alone: whether that class is to rise above the other wrong ones, whatever the true one does.
        """
        rows = self.affordable(rows, num_steps=num_steps) if self.has_class(rank) else rows[:0]
        if not len(rows):
            return
        threat = self.threat.take(rows)
        points, _ = ascend(
            self.measure(rows, rank, smooth=smooth, wide=wide, sharp=sharp, alone=alone),
            self.x[rows],
            start=threat.start(self.x[rows], self.noise(rows)),
            threat=threat,
            num_steps=num_steps,
            step_size=cosine_steps(num_steps),
            momentum=momentum,
        )
        self.finish(rows, points, alone=alone)

    def climb_from_afar(self, rows: Tensor, *, num_steps: int, factor: float | None, smooth: bool = False) -> None:
        """Climbs in a ball that shrinks to eps: where the boundary is out of sight from inside the threat.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            smooth: as in `climb`.
            factor: of eps, the radius of the first ball; None goes on from the nearest point known.
        """
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows):
            return
        assert isinstance(self.threat, Ball)
        threat, x = self.threat.take(rows), self.x[rows]
        if factor is None:
            radius, start = self.distance[rows], self.nearest[rows]
        else:
            radius = factor * threat.radii(x)
            start = threat.resized(radius).start(x, self.noise(rows))
        measure = self.measure(rows, None, smooth=smooth)
        points, nearest, distance = climb_shrinking(
            measure, x, start=start, radius=radius, threat=threat, num_steps=num_steps
        )
        nearer = distance < self.distance[rows]
        self.nearest[rows[nearer]], self.distance[rows[nearer]] = nearest[nearer], distance[nearer]
        self.finish(rows, points)

    def climb_by_corners(
        self,
        rows: Tensor,
        *,
        num_steps: int,
        factor: float | None,
        smooth: bool,
        rank: int | None = None,
        alone: bool = False,
    ) -> None:
        """Climbs inside L1 towards corners of ball and box, in a ball that shrinks to eps.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            factor: of eps, the radius of the first ball, where the start is random; None goes on from the best point,
                by shorter steps.
            smooth: as in `climb`.
            rank: as in `climb`.
            alone: as in `climb`.
        """
        rows = self.affordable(rows, num_steps=num_steps) if self.has_class(rank) else rows[:0]
        if not len(rows):
            return
        threat, x = self.threat.take(rows), self.x[rows]
        assert isinstance(threat, L1)
        start, reach = self.best[rows], _ONWARD
        if factor is not None:
            larger = threat.resized(factor * threat.radii(x))
            start, reach = larger.project(x + threat.width * self.noise(rows).normal(x), x), 1.0
        points = climb_closing_in(
            self.measure(rows, rank, smooth=smooth, alone=alone),
            x,
            start=start,
            threat=threat,
            factor=factor or 1.0,
            step=to_corner(reach),
            num_steps=num_steps,
        )
        self.finish(rows, points, alone=alone)

    def climb_densely(
        self,
        rows: Tensor,
        *,
        num_steps: int,
        factor: float,
        pixels_per_eps: int | None = None,
        rank: int | None = None,
    ) -> Tensor:
        """Climbs inside L1 by more pixels than corners have, in a ball that shrinks to eps.

        Args:
            rows: who climbs, from a random start.
            num_steps: how many steps.
            factor: of eps, the radius of the first ball.
            pixels_per_eps: of the steps, as in `L1`; None for steps along the gradient itself.
            rank: None to climb towards any class, sharply; else as in `climb`.

        Returns:
            The survivors whom it has brought on, int64 `(M,)`.
        """
        rows = self.affordable(rows, num_steps=num_steps) if self.has_class(rank) else rows[:0]
        if not len(rows):
            return rows
        threat, x = self.threat.take(rows), self.x[rows]
        assert isinstance(threat, L1)
        threat = replace(threat, pixels_per_eps=pixels_per_eps)
        larger = threat.resized(factor * threat.radii(x))
        points = climb_closing_in(
            self.measure(rows, rank, sharp=True),
            x,
            start=larger.start(x, self.noise(rows)),
            threat=threat,
            factor=factor,
            step=along_gradient,
            num_steps=num_steps,
        )
        return self.finish(rows, points)

    def climb_sparsely(self, rows: Tensor, *, num_steps: int, loss: Loss, smooth: bool = False) -> None:
        """Climbs inside L1 by ever fewer pixels, from a random start in a larger ball (`APGD`)."""
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows):
            return
        apgd = APGD(threat=self.threat.take(rows), objective=Untargeted(loss=loss), num_steps=num_steps)
        self.num_passes[rows] += num_steps
        with smooth_backward() if smooth else nullcontext():
            points = apgd.perturb(self.model, self.x[rows], self.y[rows], self.noise(rows))
        self.finish(rows, points)

    def climb_the_likelihood(self, rows: Tensor, *, num_steps: int) -> None:
        """Climbs cross-entropy, which reads all logits: where those of margins are clamped, it has a gradient yet."""
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows):
            return
        pgd = PGD(threat=self.threat.take(rows), num_steps=num_steps)
        self.num_passes[rows] += num_steps
        self.finish(rows, pgd.perturb(self.model, self.x[rows], self.y[rows], self.noise(rows)))

    def search(self, rows: Tensor, *, num_queries: int, share: float | None = None) -> Tensor:
        """Searches without gradients, by square windows, where the samples are images and the threat has such.

        Args:
            rows: who searches.
            num_queries: how many windows are tried.
            share: None to begin anew; or else to go on from the best point, by windows that at first cover this share
                of the pixels.

        Returns:
            The survivors whom it has brought on, int64 `(M,)`.
        """
        rows = self.standing(rows)
        if not len(rows) or not self._has_windows():
            return rows[:0]
        square = Square(threat=self.threat.take(rows), num_queries=num_queries, objective=Untargeted(loss=Margin()))
        if share is None:
            return self._search(square, rows, goes_on=False)
        return self._search(replace(square, initial_share=share), rows)

    def _search(self, square: Square, rows: Tensor, *, goes_on: bool = True) -> Tensor:
        given = self.model, self.x[rows], self.y[rows], self.noise(rows)
        return self.finish(rows, square.search(*given, start=self.best[rows]) if goes_on else square.perturb(*given))

    def refine(self, rows: Tensor) -> Tensor:
        """Goes on from the best point, by a short climb of small steps and then by small windows at random places.

        Each goes on where the other is stuck: where every step along the gradient fails, as on a net whose units
        saturate, one of a hundred windows may help, and from there the gradient leads on.

        Returns:
            The survivors whom the windows have brought on, int64 `(M,)`: for them it is worth another turn.
        """
        rows = self.affordable(rows, num_steps=_REFINING_STEPS + _REFINING_QUERIES // QUERIES_PER_PASS)
        if not len(rows):
            return rows
        points, _ = ascend(
            self.measure(rows, None, smooth=True),
            self.x[rows],
            start=self.best[rows],
            threat=self.threat.take(rows),
            num_steps=_REFINING_STEPS,
            step_size=lambda step, threat: _SMALL * cosine_steps(_REFINING_STEPS)(step, threat),
        )
        self.finish(rows, points)
        rows = self.standing(rows)
        if not len(rows) or not self._has_windows():
            return rows[:0]
        square = Square(
            threat=self.threat.take(rows),
            objective=Untargeted(loss=Margin()),
            num_queries=_REFINING_QUERIES,
            initial_share=_WINDOW,
            schedule_queries=10_000 * _REFINING_QUERIES,  # so that the windows stay as they are
        )
        self.num_passes[rows] += _REFINING_QUERIES / QUERIES_PER_PASS
        return self._search(square, rows)

    def _has_windows(self) -> bool:
        return self.x.ndim == 4 and isinstance(self.threat, Square.supports)
