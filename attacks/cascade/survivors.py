"""`Survivors`: what a cascade has seen of each sample, and who is worth more effort."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..core.ascend import Measure, gradient_of
from ..core.past_saturation import past_saturation
from ..core.sample_rng import SampleRng
from ..core.smooth_backward import smooth_backward
from ..core.threat import Threat
from ..threats.ball import Ball
from .first_climb import FirstClimb
from .gain import ANY, Gain
from .scatter import Scatter

QUERIES_PER_PASS = 5
"""So many forwards count as one gradient."""

SOFTNESS = 0.4  # of the sample's first margin
_SHARP = 0.07  # the same of a sharp margin
_NEAR = 1 / 6  # of the first margin, the rest below which the softness falls with it
_HARDEST = 1 / 4  # the softness never falls below this share of SOFTNESS
_NO_MARGIN = 1e-12  # a first margin of exactly 0 is replaced by this share of the largest logit gap
_PAYS = 0.005  # of the first margin, the least that brings a sample on
_APART = 0.05  # of the first margin, by which a class falls behind while others come nearer
_FEW_FEATURES = 32  # of a sample, around which classes lie on all sides
_LEVEL = 0.2  # of the first margin, within which all other classes lie where none of them is the nearest
_NUM_ASKED = 5  # classes whose own gradients are taken, the nearest at the first point


def among(rows: Tensor, others: Tensor) -> Tensor:
    """The samples that are among the others, int64 `(M,)`."""
    return rows[torch.isin(rows, others)]


def without(rows: Tensor, others: Tensor) -> Tensor:
    """The samples that are not among the others, int64 `(M,)`."""
    return rows[torch.isin(rows, others, invert=True)]


class Survivors:
    """The samples of one batch, what is known of each, and what has been spent on it.

    Args:
        threat: what the attacker may do.
        max_passes: the most gradients that are taken for one sample.
        model: images to logits `(N, C)`.
        x: the samples, float `(N, ...)`.
        y: the true classes, int64 `(N,)`.
        rng: noise per sample.

    Attributes:
        everyone: int64 `(N,)`, 0 to N - 1.
        best: of each sample the point that fell, or else the one with the highest margin, `(N, ...)`.
        first: the margin at the first point of the first climb, below 0, `(N,)`.
        highest: the highest margin at the end of a climb, `(N,)`.
        climbed: the same of climbs along the margin itself.
        first_gaps: of each class, at the first point of the first climb (`gaps`), `(N, C)`.
        class_gaps: the same, the highest at the end of a climb.
        promised: the same, the highest that the gradient at the sample itself promises inside the threat; NaN where it
            was not asked (`ask_each_class`).
        nearest: the nearest point beyond the boundary that a climb outside the threat has seen, `(N, ...)`.
        distance: how far it is, infinite where there is none, `(N,)`.
        num_passes: the gradients taken so far, `(N,)`.
        first_climb: what else the first climb has shown.
        ends: where the climbs have ended that are compared.
    """

    def __init__(self, threat: Threat, max_passes: int, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> None:
        self.threat, self.max_passes, self.model = threat, max_passes, model
        self.x, self.y, self.rng = x, y, rng
        self.best, self.everyone = x.clone(), torch.arange(len(x), device=x.device)
        self.fallen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        numbers = x.new_zeros(len(x))
        self.first, self.highest, self.climbed = (numbers - torch.inf for _ in range(3))
        self.first_gaps = self.class_gaps = self.promised = x.new_empty(0)
        self.nearest, self.distance = x.clone(), numbers + torch.inf
        self.num_passes, self.first_climb, self.ends = numbers.clone(), FirstClimb(x), Scatter(x)
        self._torn = torch.zeros_like(self.fallen)
        self._num_draws = torch.zeros_like(self.everyone)

    # Who is worth more effort.

    def near(self, share: float) -> Tensor:
        """The survivors with at most this share of their first margin left: int64 `(M,)`."""
        return (~self.fallen & (self.highest / self.first <= share)).nonzero()[:, 0]

    def within(self, factor: float) -> Tensor:
        """The survivors that are known to fall inside so many times eps: int64 `(M,)`."""
        assert isinstance(self.threat, Ball)
        return (~self.fallen & (self.distance <= factor * self.threat.radius(self.distance))).nonzero()[:, 0]

    def scattered(self, hope: float, *, within: float = torch.inf) -> Tensor:
        """The survivors that another climb may reach, by the scatter of the ends so far: int64 `(M,)`.

        Args:
            hope: as of `Scatter.may_reach`.
            within: the most of the first margin that may be left.
        """
        rows = self.near(within)
        return rows[self.ends.may_reach(hope)[rows]]

    def bent(self) -> Tensor:
        """The survivors whose gain bends (`FirstClimb.bends`): int64 `(M,)`."""
        rows = self.near(torch.inf)
        return rows[self.first_climb.bends[rows]]

    def saturated(self) -> Tensor:
        """The survivors that saturate bounded units (`FirstClimb.saturates`): int64 `(M,)`."""
        rows = self.near(torch.inf)
        return rows[self.first_climb.saturates[rows]]

    def torn(self) -> Tensor:
        """The survivors whom one class may reach although the others lead away from it: int64 `(M,)`.

        In the first climb some class fell behind, or the samples have so few features that any may lie elsewhere.
        """
        rows = self.near(torch.inf)
        return rows if self.x[0].numel() <= _FEW_FEATURES else rows[self._torn[rows]]

    def level(self) -> Tensor:
        """The survivors of whom no class but their own is nearer than another, at the first point: int64 `(M,)`.

        As where a net was trained to give one number for the true class and another for all others: their logits then
        say nothing of which one lies next, and hardly change along the gradient of a margin, which is that of the true
        class.
        """
        rows = self.near(torch.inf)
        gaps = self.first_gaps[rows]
        low = gaps.masked_fill(gaps.isinf(), torch.inf).amin(1)
        return rows[(gaps.amax(1) - low <= -_LEVEL * self.first[rows]) & (gaps.shape[1] > 3)]

    def standing(self, rows: Tensor) -> Tensor:
        """Those of the samples that have not fallen."""
        return rows[~self.fallen[rows]]

    def affordable(self, rows: Tensor, *, num_steps: float, rank: int | None = None) -> Tensor:
        """Those of the samples whose budget has so many steps left; none where the model has no class of that rank."""
        if rank is not None and rank >= self.class_gaps.shape[1] - 1:
            return rows[:0]
        return rows[self.num_passes[rows] + num_steps <= self.max_passes]

    def ask_each_class(self, rows: Tensor) -> None:
        """Takes the gradient of each class at the samples, int64 `(M,)`: how far would it rise, were it linear?

        Climbs that all lead to one class say little of which other one would fall. Classes in this order: Melamed,
        Yehudai and Vardi, "MALT powers up adversarial attacks", 2024, who divide gaps by the length of the gradient;
        here what counts is how far it leads in ball and box.
        """
        assert isinstance(self.threat, Ball)
        number = min(_NUM_ASKED, self.class_gaps.shape[1] - 1)
        if not len(self.promised):
            self.promised = torch.full_like(self.class_gaps, torch.nan)
        rows = self.affordable(rows[self.promised[rows].isnan().all(1)], num_steps=number)
        if number < 2 or not len(rows):
            return
        threat, x = self.threat.take(rows), self.x[rows]
        self.promised[rows] = -torch.inf
        for target in self.first_gaps[rows].topk(number, dim=1).indices.unbind(1):
            # A forward for each, since a compiled model keeps no graph for another gradient.
            leaf = x.clone().requires_grad_()
            gap = self.gaps(leaf, rows).gather(1, target[:, None])[:, 0]
            grad = gradient_of(gap, leaf)
            self.promised[rows, target] = gap.detach() + (grad * (threat.farthest(grad, x) - x)).flatten(1).sum(1)
        self.num_passes[rows] += number

    def promising(self, rank: int) -> Tensor:
        """The survivors of whom so many classes and one more would be reached, were they linear, int64 `(M,)`.

        After `ask_each_class`, by those whom it has asked.
        """
        promised = self.promised.nan_to_num(nan=-torch.inf).topk(rank + 1, dim=1).values[:, -1]
        return self.standing(self.everyone[promised[self.everyone] > 0])

    # What a climb measures and leaves behind.

    def measure(self, rows: Tensor, gain: Gain = ANY) -> Measure:
        """What a climb of these samples, int64 `(M,)`, follows, and whether any class has won. Counts the passes.

        The margin over all classes is the less soft the nearer a sample has come: where several classes are as near as
        each other a soft one leads between them.
        """
        left = (self.highest[rows] / self.first[rows]).nan_to_num(nan=1.0)  # before the first climb nothing is known
        softness = torch.full_like(left, _SHARP) if gain.sharp else SOFTNESS * (left / _NEAR).clamp(_HARDEST, 1)
        targets = self._targets(rows, gain)

        def measure(points: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            which = rows[part]
            self.num_passes[which] += 1
            gaps = self._gaps_along(points, which, gain)
            self._see_first(which, gaps.detach())
            turned = self._turned(gaps.detach(), which)
            if targets is None:
                return self.soft_gain(gaps, which, softness[part]), turned
            gap = gaps.gather(1, targets[part, None])[:, 0]
            if gain.alone:
                others = gaps.masked_fill(gaps.isinf(), 0).sum(1) - gap
                gap = gap - others / (gaps.shape[1] - 2)
            return gap, turned

        if not self.first_climb.goes_on:
            return measure
        return self.first_climb.watched(measure, rows, plain=not gain.smooth)

    def _targets(self, rows: Tensor, gain: Gain) -> Tensor | None:
        """The class that each sample is to climb towards, int64 `(M,)`; None for any."""
        if gain.rank is None:
            return None
        ranked = self.first_gaps[rows] if gain.alone else self.class_gaps[rows]
        if gain.promised:
            ranked = torch.where(self.promised[rows].isnan(), ranked, self.promised[rows])
        return ranked.topk(gain.rank + 1, dim=1).indices[:, -1]

    def _gaps_along(self, points: Tensor, rows: Tensor, gain: Gain) -> Tensor:
        """`gaps` by the gradients that are asked for; in the first climb with a look at how far units saturate."""
        watching = gain.wide or self.first_climb.goes_on
        with (
            smooth_backward() if gain.smooth else nullcontext(),
            past_saturation(len(rows), widens=gain.wide) if watching else nullcontext() as units,
        ):
            gaps = self.gaps(points, rows)
        if units is not None and self.first_climb.goes_on:
            self.first_climb.see_units(rows, units)
        return gaps

    def _see_first(self, rows: Tensor, gaps: Tensor) -> None:
        """Keeps the margin and the gaps of samples that are measured for the first time."""
        highest, size = gaps.amax(1), gaps.masked_fill(gaps.isinf(), 0).abs().amax(1)
        begun = highest.minimum(-_NO_MARGIN * size).clamp_max(-torch.finfo(highest.dtype).tiny)
        if not len(self.first_gaps):
            self.first_gaps = gaps.new_zeros(len(self.x), gaps.shape[1])
        is_first = self.first[rows].isinf()
        self.first_gaps[rows] = torch.where(is_first[:, None], gaps, self.first_gaps[rows])
        self.first[rows] = torch.where(is_first, begun, self.first[rows])

    def soft_gain(self, gaps: Tensor, rows: Tensor, softness: Tensor | float) -> Tensor:
        """A margin over all classes, `(M,)`, that is soft by a share of the first margin."""
        scale = -softness * self.first[rows]
        return scale * torch.logsumexp(gaps / scale[:, None], 1)

    def see_beyond(self, rows: Tensor, points: Tensor, distance: Tensor) -> None:
        """Keeps points beyond the boundary, at these distances, `(M,)`, where they are nearer than any known."""
        nearer = distance < self.distance[rows]
        self.nearest[rows[nearer]], self.distance[rows[nearer]] = points[nearer], distance[nearer]

    @torch.no_grad()
    def finish(self, rows: Tensor, points: Tensor, *, alone: bool = False) -> Tensor:
        """Takes in where a climb has ended.

        Args:
            rows: who has climbed, int64 `(M,)`.
            points: where to, `(M, ...)`.
            alone: as in `Gain`: such a climb says nothing of where the margin's gradient leads.

        Returns:
            The survivors whom it has brought on, int64 `(M,)`.
        """
        if self.first_climb.goes_on:
            self.first_climb.end(-self.first)
        gaps = self.gaps(points, rows)
        if not len(self.class_gaps):
            self.class_gaps = gaps.new_full((len(self.x), gaps.shape[1]), -torch.inf)
            behind = (self.first_gaps[rows] - gaps).nan_to_num(-torch.inf)  # not of the true class
            self._torn[rows] = (behind.amax(1) > -_APART * self.first[rows]) & (gaps > self.first_gaps[rows]).any(1)
        self.class_gaps[rows] = torch.maximum(self.class_gaps[rows], gaps)
        end, turned = gaps.amax(1), self._turned(gaps, rows)
        # Of ends that rounding alone tells apart the first is kept.
        better = turned | (end > self.highest[rows] - 1e-4 * self.first[rows])
        brought_on = end - self.highest[rows] > -_PAYS * self.first[rows]
        self.best[rows[better]] = points[better]
        self.highest[rows] = torch.maximum(self.highest[rows], end)
        if not alone:
            self.climbed[rows] = torch.maximum(self.climbed[rows], end)
        self.fallen[rows] |= turned
        self.ends.see(rows, end / -self.first[rows])
        return rows[brought_on & ~turned]

    def gaps(self, points: Tensor, rows: Tensor) -> Tensor:
        """Each class's logit minus that of the true class, `(M, C)`; minus infinity for the true class."""
        labels, logits = self.y[rows, None], self.model(points)
        if self.first_climb.goes_on:
            self.first_climb.see_logits(rows, logits.detach().to(self.x.dtype))
        return (logits - logits.gather(1, labels)).to(self.x.dtype).scatter(1, labels, -torch.inf)

    def _turned(self, gaps: Tensor, rows: Tensor) -> Tensor:
        """Which samples another class has won, of a tie the first one: bool `(M,)`."""
        highest, winner = gaps.max(1)
        return (highest > 0) | ((highest == 0) & (winner < self.y[rows]))

    def noise(self, rows: Tensor) -> SampleRng:
        """Noise that depends on what the sample itself has been through, not on who else is in the batch."""
        self._num_draws[rows] += 1
        return self.rng.take(rows).fold_each(self._num_draws[rows])
