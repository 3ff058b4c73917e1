"""`Survivors`: what a cascade has seen of each sample, who is worth more effort, and kinds of climbs for them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..apgd import APGD
from ..core.ascend import Measure, ascend, cosine_steps, gradient_of
from ..core.sample_rng import SampleRng
from ..core.smooth_backward import smooth_backward
from ..core.threat import Threat
from ..objectives.losses import Loss, Margin
from ..objectives.untargeted import Untargeted
from ..square import Square
from ..threats.ball import Ball
from .shrinking import climb_shrinking

QUERIES_PER_PASS = 5
_SOFTNESS = 0.4  # of the sample's first margin
_REFINING_STEPS = 10
_REFINING_QUERIES = 100
_SMALL = 0.1  # of the steps of a climb from elsewhere
_WINDOW = 0.02  # the share of the pixels that a window covers
_PAYS = 0.005  # of the first margin, the least that windows must gain


class Survivors:
    """The samples of one batch and what has been spent on each.

    Args:
        threat: what the attacker may do.
        max_passes: the most gradients that are taken for one sample.
        model: images to logits `(N, C)`.
        x: the samples, float `(N, ...)`.
        y: the true classes, int64 `(N,)`.
        rng: noise per sample.

    Attributes:
        best: of each sample the point that fell, or else the one with the highest margin, `(N, ...)`.
        everyone: int64 `(N,)`, 0 to N - 1.
    """

    def __init__(self, threat: Threat, max_passes: int, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> None:
        self.threat, self.max_passes, self.model = threat, max_passes, model
        self.x, self.y, self.rng = x, y, rng
        self.best, self.everyone = x.clone(), torch.arange(len(x), device=x.device)
        self.fallen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        numbers = x.new_zeros(len(x))
        self.first = numbers - torch.inf  # the margin at the first point of the first climb, below 0
        self.highest = numbers - torch.inf  # the highest margin at the end of a climb
        self.class_gaps = x.new_empty(0)  # of each class, the highest at the end of a climb, `(N, C)`
        # The nearest point beyond the boundary that a climb outside the threat has seen, and how far it is.
        self.nearest, self.distance = x.clone(), numbers + torch.inf
        self.num_passes = numbers.clone()
        self._num_climbs = 0
        # Of the ends of the climbs that are compared: their number, sum, and sum of squares.
        self._ends = torch.zeros(3, len(x), dtype=torch.float64, device=x.device)

    # Who is worth more effort.

    def near(self, share: float) -> Tensor:
        """The survivors with at most this share of their first margin left: int64 `(M,)`."""
        return (~self.fallen & (self.highest / self.first <= share)).nonzero()[:, 0]

    def within(self, factor: float) -> Tensor:
        """The survivors that are known to fall inside so many times eps: int64 `(M,)`."""
        assert isinstance(self.threat, Ball)
        return (~self.fallen & (self.distance <= factor * self.threat.radius(self.distance))).nonzero()[:, 0]

    def begin_to_compare(self) -> None:
        """Forgets the ends of climbs of other lengths."""
        self._ends.zero_()

    def scattered(self, hope: float, *, within: float = torch.inf) -> Tensor:
        """The survivors that another climb may reach, by the scatter of the ends so far: int64 `(M,)`.

        Args:
            hope: the most standard deviations from the mean end to the boundary.
            within: the most of the first margin that may be left.
        """
        number, total, squares = self._ends
        mean = total / number
        spread = (squares / number - mean.square()).clamp_min(0).sqrt()
        rows = self.near(within)
        return rows[((number >= 2) & (-mean <= hope * spread))[rows]]

    def affordable(self, rows: Tensor, *, num_steps: int) -> Tensor:
        """Those of the samples whose budget has so many steps left."""
        return rows[self.num_passes[rows] + num_steps <= self.max_passes]

    def blind(self) -> Tensor:
        """The survivors whose gradient vanishes, or turns round within a twentieth of eps: int64 `(M,)`."""
        rows = self.affordable(self.near(torch.inf), num_steps=2)
        rows = rows[(self.highest / self.first)[rows] >= 0.8]
        if not len(rows):
            return rows
        x, start = self.x[rows], self.threat.take(rows).start(self.x[rows], self._noise(rows))
        grads = []
        for points in (start, start + 0.05 * (x - start)):
            leaf = points.clone().requires_grad_()
            grads.append(gradient_of(Margin()(self.model(leaf), self.y[rows]), leaf).flatten(1))
        self.num_passes[rows] += 2
        return rows[torch.cosine_similarity(grads[0], grads[1]) < 0.5]

    # Kinds of climbs, each with the samples whose budget allows it.

    def climb(
        self, rows: Tensor, *, num_steps: int, momentum: float = 0.0, smooth: bool = False, rank: int | None = None
    ) -> None:
        """Climbs from a random start.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            momentum: as in `ascend`.
            smooth: whether along gradients that see units at rest (`smooth_backward`).
            rank: None to climb towards any class, softly; 0 towards the nearest one, 1 towards the next.
        """
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows) or (rank is not None and rank >= self.class_gaps.shape[1] - 1):
            return
        targets = None if rank is None else self.class_gaps[rows].topk(rank + 1, dim=1).indices[:, rank]
        threat = self.threat.take(rows)
        points, _ = ascend(
            self._measure(rows, targets, smooth=smooth),
            self.x[rows],
            start=threat.start(self.x[rows], self._noise(rows)),
            threat=threat,
            num_steps=num_steps,
            step_size=cosine_steps(num_steps),
            momentum=momentum,
        )
        self._finish(rows, points)

    def climb_from_afar(self, rows: Tensor, *, num_steps: int, factor: float | None) -> None:
        """Climbs in a ball that shrinks to eps: where the boundary is out of sight from inside the threat.

        Args:
            rows: who climbs.
            num_steps: how many steps.
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
            radius = (factor * threat.radius(self.distance)).expand(len(rows))
            larger: Ball = replace(threat, eps=radius)  # type: ignore[type-var]
            start = larger.start(x, self._noise(rows))
        measure = self._measure(rows, None)
        points, nearest, distance = climb_shrinking(
            measure, x, start=start, radius=radius, threat=threat, num_steps=num_steps
        )
        nearer = distance < self.distance[rows]
        self.nearest[rows[nearer]], self.distance[rows[nearer]] = nearest[nearer], distance[nearer]
        self._finish(rows, points)

    def climb_sparsely(self, rows: Tensor, *, num_steps: int, loss: Loss) -> None:
        """Climbs inside L1 by ever fewer pixels, from a random start in a larger ball (`APGD`)."""
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows):
            return
        apgd = APGD(threat=self.threat.take(rows), objective=Untargeted(loss=loss), num_steps=num_steps)
        self.num_passes[rows] += num_steps
        self._finish(rows, apgd.perturb(self.model, self.x[rows], self.y[rows], self._noise(rows)))

    def search(self, rows: Tensor, *, num_queries: int) -> None:
        """Searches without gradients, by square windows, where the samples are images and the threat has such."""
        if not len(rows) or not self._has_windows():
            return
        square = Square(threat=self.threat.take(rows), num_queries=num_queries, objective=Untargeted(loss=Margin()))
        self._finish(rows, square.perturb(self.model, self.x[rows], self.y[rows], self._noise(rows)))

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
            self._measure(rows, None, smooth=True),
            self.x[rows],
            start=self.best[rows],
            threat=self.threat.take(rows),
            num_steps=_REFINING_STEPS,
            step_size=lambda step, threat: _SMALL * cosine_steps(_REFINING_STEPS)(step, threat),
        )
        self._finish(rows, points)
        rows = rows[~self.fallen[rows]]
        if not len(rows) or not self._has_windows():
            return rows[:0]
        before = self.highest[rows]
        square = Square(
            threat=self.threat.take(rows),
            objective=Untargeted(loss=Margin()),
            num_queries=_REFINING_QUERIES,
            initial_share=_WINDOW,
            schedule_queries=10_000 * _REFINING_QUERIES,  # so that the windows stay as they are
        )
        noise = self._noise(rows)
        found = square.search(self.model, self.x[rows], self.y[rows], noise, start=self.best[rows])
        self.num_passes[rows] += _REFINING_QUERIES / QUERIES_PER_PASS
        self._finish(rows, found)
        brought_on = ~self.fallen[rows] & (self.highest[rows] - before > -_PAYS * self.first[rows])
        return rows[brought_on]

    def _has_windows(self) -> bool:
        return self.x.ndim == 4 and isinstance(self.threat, Square.supports)

    def _measure(self, rows: Tensor, targets: Tensor | None, *, smooth: bool = False) -> Measure:
        """The margin over a class or, softly, over all; and whether any class has won. Counts the passes."""

        def measure(points: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            which = rows[part]
            self.num_passes[which] += 1
            with smooth_backward() if smooth else nullcontext():
                gaps = self._gaps(points, which)
            highest = gaps.amax(1)
            seen = highest.detach()
            self.first[which] = torch.where(self.first[which].isinf(), seen.clamp_max(-1e-12), self.first[which])
            if targets is not None:
                return gaps.gather(1, targets[part, None])[:, 0], seen > 0
            softness = -_SOFTNESS * self.first[which]
            return softness * torch.logsumexp(gaps / softness[:, None], 1), seen > 0

        return measure

    @torch.no_grad()
    def _finish(self, rows: Tensor, points: Tensor) -> None:
        """Takes in where a climb has ended."""
        gaps = self._gaps(points, rows)
        if not len(self.class_gaps):
            self.class_gaps = gaps.new_full((len(self.x), gaps.shape[1]), -torch.inf)
        self.class_gaps[rows] = torch.maximum(self.class_gaps[rows], gaps)
        end = gaps.amax(1)
        # Of ends that rounding alone tells apart the first is kept.
        better = (end > 0) | (end > self.highest[rows] - 1e-4 * self.first[rows])
        self.best[rows[better]] = points[better]
        self.highest[rows] = torch.maximum(self.highest[rows], end)
        self.fallen[rows] |= end > 0
        share = (end / -self.first[rows]).double()
        self._ends[:, rows] += torch.stack([torch.ones_like(share), share, share.square()])

    def _gaps(self, points: Tensor, rows: Tensor) -> Tensor:
        """Each class's logit minus that of the true class, `(M, C)`; minus infinity for the true class."""
        labels, logits = self.y[rows, None], self.model(points)
        return (logits - logits.gather(1, labels)).scatter(1, labels, -torch.inf)

    def _noise(self, rows: Tensor) -> SampleRng:
        self._num_climbs += 1
        return self.rng.take(rows).fold(self._num_climbs)
