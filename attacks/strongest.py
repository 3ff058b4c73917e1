"""`Strongest`: the cascade that answers "how robust is it really" at the lowest cost.

Known parts: steps that fall from twice eps along a cosine, and momentum (Croce and Hein, 2020); effort where the margin
is small (Gao et al., "Fast and reliable evaluation of adversarial robustness with minimum-margin attack", 2022); a
climb in a larger ball that shrinks to eps (Croce and Hein, "Mind the box", 2021, section 3.3); a black box where
gradients are blind. Its own: a margin that is soft on the scale of each sample's own margin, so that it neither
saturates nor depends on the scale of the logits; and restarts where the ends of earlier climbs scatter, since where
they all end alike another one ends there too.

What is spent on a sample depends on that sample alone, so that its verdict is the same in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .core.ascend import ascend, cosine_steps, gradient_of
from .core.attack import Attack
from .core.checks import check_counts
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.losses import Margin
from .objectives.untargeted import Untargeted
from .square import Square
from .threats.linf import Linf

_SOFTNESS = 0.4  # of the sample's first margin
_THOROUGH = 400  # the budget from which on every survivor is tried again
_NUM_SCATTERED = 3  # equal climbs whose ends are compared
_HOPE = 8.0  # standard deviations between the mean end and the boundary, up to which another climb may reach it
_HOPE_AT_ONCE = 3.0  # the same after climbs of unlike lengths
_LARGER = (4.0, 2.0, 1.0)  # of eps: the balls of a climb from afar
_NUM_CLASSES = 3  # the nearest ones, towards which the nearest survivors climb
_QUERIES_PER_PASS = 5


@dataclass(frozen=True, kw_only=True)
class Strongest(Attack):
    """Cheap steps first, survivors only, and effort where a sample may still fall.

    Every sample climbs for 8 steps. Survivors that have come near to falling climb again, from other random starts
    and for longer; inside L2 and L1 the others climb in a larger ball that shrinks to theirs. Where the gradient leads
    nowhere, a black box searches. From a budget of 400 on, every survivor is tried again, and the budget is spent on
    those whose climbs end at unlike margins.

    Args:
        threat: what the attacker may do.
        max_passes: the most gradients that are taken for one sample, >= 1; most samples take far fewer. 200 answers
            quickly, 500 thoroughly.

    Raises:
        ValueError: `max_passes` is below 1.

    Example:
        >>> report = evaluate(model, x, y, {"strongest": Strongest(threat=Linf(eps=8 / 255))})
    """

    threat: Threat
    max_passes: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "max_passes")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        search = _Search(self.threat, self.max_passes, model, x, y, rng)
        search.climb(search.everyone, num_steps=min(8, self.max_passes), momentum=0.25)
        search.climb(search.near(0.6), num_steps=20)
        search.climb(search.near(0.35), num_steps=40)
        for _ in range(2):
            search.climb(search.scattered(_HOPE_AT_ONCE, within=0.7), num_steps=40)
        for rank in range(_NUM_CLASSES):
            search.climb(search.near(0.25), num_steps=15, rank=rank)
        if not isinstance(self.threat, Linf):
            search.climb_from_afar(search.near(torch.inf), num_steps=10)
            for rank in range(_NUM_CLASSES):
                search.climb(search.near(0.35), num_steps=20, rank=rank)
        search.where_gradients_are_blind()
        if self.max_passes >= _THOROUGH:
            search.begin_to_compare()
            for _ in range(_NUM_SCATTERED):
                search.climb(search.near(torch.inf), num_steps=20)
            for _ in range(0 if isinstance(self.threat, Linf) else _NUM_SCATTERED):
                search.climb_from_afar(search.near(torch.inf), num_steps=15)
            while len(rows := search.affordable(search.scattered(_HOPE), num_steps=100)):
                search.climb(rows, num_steps=100)
        return search.best


class _Search:
    """What the cascade has seen of each sample so far."""

    def __init__(self, threat: Threat, max_passes: int, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> None:
        self.threat, self.max_passes, self.model = threat, max_passes, model
        self.x, self.y, self.rng = x, y, rng
        self.best, self.everyone = x.clone(), torch.arange(len(x), device=x.device)
        self.fallen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        numbers = x.new_zeros(len(x))
        self.first = numbers - torch.inf  # the margin at the first point of the first climb, below 0
        self.highest = numbers - torch.inf  # the highest margin at the end of a climb
        self.class_gaps = x.new_empty(0)  # of each class, the highest at the end of a climb, `(N, C)`
        self.num_passes = numbers.clone()
        self._num_climbs = 0
        # Of the ends of the climbs that are compared: their number, sum, and sum of squares.
        self._ends = torch.zeros(3, len(x), dtype=torch.float64, device=x.device)

    # Who is worth more effort.

    def near(self, share: float) -> Tensor:
        """The survivors with at most this share of their first margin left: int64 `(M,)`."""
        return (~self.fallen & (self.highest / self.first <= share)).nonzero()[:, 0]

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

    # Kinds of climbs.

    def climb(self, rows: Tensor, *, num_steps: int, momentum: float = 0.0, rank: int | None = None) -> None:
        """Climbs from a random start, with the samples whose budget allows it.

        Args:
            rows: who climbs.
            num_steps: how many steps.
            momentum: as in `ascend`.
            rank: None to climb towards any class, softly; 0 towards the nearest one, 1 towards the next.
        """
        rows = self.affordable(rows, num_steps=num_steps)
        if not len(rows) or (rank is not None and rank >= self.class_gaps.shape[1] - 1):
            return
        targets = None if rank is None else self.class_gaps[rows].topk(rank + 1, dim=1).indices[:, rank]
        start = self.threat.take(rows).start(self.x[rows], self._noise(rows))
        self._finish(rows, self._ascend(rows, start, 1.0, num_steps, momentum, targets))

    def climb_from_afar(self, rows: Tensor, *, num_steps: int) -> None:
        """Climbs in larger balls, one after another: where the boundary is out of sight from near the sample."""
        rows = self.affordable(rows, num_steps=num_steps * len(_LARGER))
        if not len(rows):
            return
        noise, points = self._noise(rows), None
        for scale in _LARGER:
            threat = self._scaled(rows, scale)
            start = threat.start(self.x[rows], noise) if points is None else threat.project(points, self.x[rows])
            points = self._ascend(rows, start, scale, num_steps, 0.25)
        assert points is not None
        self._finish(rows, points)

    def where_gradients_are_blind(self) -> None:
        """Searches without gradients for those whose gradient vanishes, or turns round within a twentieth of eps."""
        rows = self.affordable(self.near(torch.inf), num_steps=2)
        rows = rows[(self.highest / self.first)[rows] >= 0.8]
        if not len(rows) or self.x.ndim != 4 or not isinstance(self.threat, Square.supports):
            return
        x, start = self.x[rows], self.threat.take(rows).start(self.x[rows], self._noise(rows))
        grads = []
        for points in (start, start + 0.05 * (x - start)):
            leaf = points.clone().requires_grad_()
            grads.append(gradient_of(Margin()(self.model(leaf), self.y[rows]), leaf).flatten(1))
        self.num_passes[rows] += 2
        rows = rows[torch.cosine_similarity(grads[0], grads[1]) < 0.5]
        if len(rows):
            queries = _QUERIES_PER_PASS * self.max_passes
            square = Square(threat=self.threat.take(rows), num_queries=queries, objective=Untargeted(loss=Margin()))
            self._finish(rows, square.perturb(self.model, self.x[rows], self.y[rows], self._noise(rows)))

    def _ascend(
        self,
        rows: Tensor,
        start: Tensor,
        scale: float,
        num_steps: int,
        momentum: float,
        targets: Tensor | None = None,
    ) -> Tensor:
        def measure(points: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            which = rows[part]
            self.num_passes[which] += 1
            gaps = self._gaps(points, which)
            highest = gaps.amax(1)
            seen = highest.detach()
            self.first[which] = torch.where(self.first[which].isinf(), seen.clamp_max(-1e-12), self.first[which])
            if targets is not None:
                return gaps.gather(1, targets[part, None])[:, 0], seen > 0
            softness = -_SOFTNESS * self.first[which]
            return softness * torch.logsumexp(gaps / softness[:, None], 1), seen > 0

        points, _ = ascend(
            measure,
            self.x[rows],
            start=start,
            threat=self._scaled(rows, scale),
            num_steps=num_steps,
            step_size=cosine_steps(num_steps),
            momentum=momentum,
        )
        return points

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

    def _scaled(self, rows: Tensor, scale: float) -> Threat:
        threat = self.threat.take(rows)
        return threat if scale == 1 else replace(threat, eps=scale * threat.eps)  # type: ignore[type-var]

    def _noise(self, rows: Tensor) -> SampleRng:
        self._num_climbs += 1
        return self.rng.take(rows).fold(self._num_climbs)
