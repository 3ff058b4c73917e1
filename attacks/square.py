"""`Square`: random search with square windows, by the logits alone.

Source: Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search", 2020,
algorithms 1, 2 (Linf) and 3 (L2); Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", 2021 (L1). The constants are those of the authors' code, https://github.com/fra31/auto-attack.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_numbers

from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.gain import gain_of
from .core.objective import Objective
from .core.per_sample import PerSample, leave_every, norms, per_sample, wide
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.losses import Margin
from .objectives.untargeted import Untargeted
from .threats.ball import Ball
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf

_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: when the share of the pixels that a window covers is halved."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Changes a square window at a random place, and keeps the change if the gain grew.

    It looks at no gradient, so that it finds what masked gradients hide; against honest gradients it is the most
    expensive attack for what it finds. Inside Linf a window takes one of the two extreme values per channel; inside L2
    and L1 a window takes over what another one has spent, in a pattern with a peak at its middle.

    Args:
        threat: what the attacker may do; Linf, L2 or L1, around images `(N, C, H, W)`.
        objective: what the attacker wants.
        num_queries: forwards per restart beyond the first, >= 1.
        num_restarts: how often each sample is tried, >= 1.
        initial_share: share of the pixels that the first windows cover, in (0, 1].
        schedule_queries: the number of queries over which the windows shrink; None for `num_queries`. AutoAttack
            runs the first 5,000 queries of a schedule of 10,000.

    Raises:
        ValueError: a value is outside its range; or, when called, the samples are no images.

    Example:
        >>> square = Square(threat=Linf(eps="8/255"), num_queries=1000)
    """

    kind = "black box"
    supports: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    threat: Threat
    objective: Objective = Untargeted(loss=Margin())
    num_queries: int = 5000
    num_restarts: int = 1
    initial_share: float = 0.8
    schedule_queries: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_queries", "num_restarts")
        if self.schedule_queries is not None:
            check_counts(self, "schedule_queries")
        check_numbers(self, "initial_share")
        if not 0 < self.initial_share <= 1:
            raise ValueError(f"Square(initial_share=...) must be in (0, 1], got {self.initial_share:g}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"Square needs images `(N, C, H, W)`, got the shape {tuple(x.shape)}")
        if self.num_restarts == 1:
            return self.search(model, x, y, rng, start=_windows(self.threat).first(x, rng))
        one = replace(self, num_restarts=1)
        return attack_in_sequence([one] * self.num_restarts, gain_of(model, self.objective, y), model, x, y, rng)

    @torch.no_grad()
    def search(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng, *, start: Tensor) -> Tensor:
        """One restart from points inside the threat, `(N, C, H, W)`, which may be those of another attack."""
        measure, windows = gain_of(model, self.objective, y), _windows(self.threat)
        points, rows = x.clone(), torch.arange(len(x), device=x.device)
        best, best_gain, done = x, torch.full_like(x.flatten(1)[:, 0], -torch.inf), torch.zeros_like(rows) > 0
        for query in range(self.num_queries + 1):
            tried = windows.changed(best, x, self._share(query - 1), rng.fold(query)) if query else start
            gain, reached = measure(tried, rows)
            better = ~done & (reached | (gain > best_gain))
            best, best_gain = torch.where(wide(better, x), tried, best), torch.where(better, gain, best_gain)
            done = done | reached
            if query % leave_every(x.device, otherwise=20) == 0 and bool(done.any()):
                points[rows[done]] = best[done]
                left = ~done
                rows, best, best_gain, done, x = rows[left], best[left], best_gain[left], done[left], x[left]
                windows, rng = windows.take(left), rng.take(left)
                if not len(rows):
                    break
        points[rows] = best
        return points

    def _share(self, query: int) -> float:
        """The share of the pixels that a window covers, halved along the schedule."""
        place = query * 10_000 / (self.schedule_queries or self.num_queries)
        return self.initial_share / 2 ** sum(place > end for end in _HALVED_AFTER)


def _windows(threat: Threat) -> _Windows:
    assert isinstance(threat, Ball)  # of `supports`
    return _Squares(threat) if isinstance(threat, Linf) else _Peaks(threat)


@dataclass(frozen=True)
class _Windows(PerSample, ABC):
    """The changes that are tried: of each sample at a place of its own, where the original shares one in a batch."""

    threat: Ball

    @abstractmethod
    def first(self, x: Tensor, rng: SampleRng) -> Tensor:
        """Where the search begins, `(N, C, H, W)`."""

    @abstractmethod
    def changed(self, points: Tensor, x: Tensor, share: float, rng: SampleRng) -> Tensor:
        """`points` with a window changed that covers a share of the pixels."""


class _Squares(_Windows):
    """Linf: every pixel at an end of its range (algorithm 2)."""

    def first(self, x: Tensor, rng: SampleRng) -> Tensor:
        stripes = _signs(rng.uniform(x[:, :, :1, :]))
        return self.threat.project(x + self.threat.radius(x) * stripes, x)

    def changed(self, points: Tensor, x: Tensor, share: float, rng: SampleRng) -> Tensor:
        num_channels, height, width = x.shape[1:]
        side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
        numbers = rng.uniform(x.new_empty(len(x), 2 + num_channels))
        inside = _inside(numbers[:, :2], height, width, side)
        signs = _signs(numbers[:, 2:, None, None])
        return torch.where(inside, self.threat.project(x + self.threat.radius(x) * signs, x), points)


class _Peaks(_Windows):
    """L2 and L1: a window with a peak spends what it and another one, now emptied, have spent (algorithm 3)."""

    def first(self, x: Tensor, rng: SampleRng) -> Tensor:
        num_channels, height, width = x.shape[1:]
        side = max(1, min(height, width) // 5)
        down, across = min(5, height // side), min(5, width // side)
        numbers = rng.uniform(x.new_empty(len(x), 1 + num_channels, down, across))
        tiles = self._pattern(side, x, turned=numbers[:, :1, :, :, None, None] < 0.5)
        tiles = tiles * _signs(numbers[:, 1:, :, :, None, None])
        grid = tiles.permute(0, 1, 2, 4, 3, 5).reshape(len(x), num_channels, down * side, across * side)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        change = torch.zeros_like(x)
        change[:, :, top : top + down * side, left : left + across * side] = grid
        length = self._length_factor(num_channels) * self.threat.radius(x) / per_sample(norms(change, self.threat.p), x)
        return self._boxed(x + length * change, x)

    def changed(self, points: Tensor, x: Tensor, share: float, rng: SampleRng) -> Tensor:
        num_channels, height, width = x.shape[1:]
        side = max(round(math.sqrt(share * height * width)), 3)
        side = min(side + (side % 2 == 0), height, width)
        numbers = rng.uniform(x.new_empty(len(x), 5 + num_channels))
        filled, emptied = (_inside(numbers[:, i : i + 2], height, width, side) for i in (0, 2))
        pixels = _pixels(numbers[:, :2], height, width, side).expand(-1, num_channels, -1)
        p, change = self.threat.p, points - x
        # In powers of the norm, `(M, C, 1, 1)`: what the windows have spent, and a channel's part of what nobody has.
        spent = ((filled | emptied) * change.abs() ** p).sum((2, 3), keepdim=True)
        unspent = self.threat.radius(x) ** p - (change.abs() ** p).sum((1, 2, 3), keepdim=True)
        length = (spent + unspent.clamp_min(0) / num_channels) ** (1 / p) * self._length_factor(num_channels)
        window = change.flatten(2).gather(2, pixels).unflatten(2, (side, side))
        pattern = self._pattern(side, x, turned=numbers[:, 4, None, None, None] < 0.5)
        window = _unit(window, p) + pattern * _signs(numbers[:, 5:, None, None])
        change = (change * ~emptied).flatten(2).scatter(2, pixels, (length * _unit(window, p)).flatten(2))
        return self._boxed(x + change.reshape(x.shape), x)

    def _boxed(self, points: Tensor, x: Tensor) -> Tensor:
        # L2: what is spent is eps at most, so that box and mask alone are left, without the projection's sort.
        is_l2 = self.threat.p == 2
        return self.threat.clip(self.threat.masked(points, x)) if is_l2 else self.threat.project(points, x)

    def _length_factor(self, num_channels: int) -> int:
        """L1: its projection shortens every pixel; changes that are too long leave the peaks of all channels."""
        return num_channels if self.threat.p == 1 else 1

    def _pattern(self, side: int, like: Tensor, turned: Tensor) -> Tensor:
        """Two peaks of opposite sign, one above the other or, where it is turned, beside; of unit length."""
        p = self.threat.p
        power = 2 if p == 2 else 4
        halves = [_peak(height, side, power, like.device) for height in (side // 2, side - side // 2)]
        halves = [half / half.norm(p) for half in halves]
        pattern = _unit(torch.cat([halves[0], -halves[1]]), p).to(like)
        return torch.where(turned, pattern.T, pattern)


def _peak(height: int, width: int, power: int, device: torch.device | None = None) -> Tensor:
    """Squares around the middle, each wider by one pixel, on top of each other; the k-th is 1 / k**power high."""
    down, across = ((torch.arange(size, device=device) - size // 2).abs() for size in (height, width))
    heights = 1 / torch.arange(1.0, max(height, width) // 2 + 2, device=device) ** power
    return heights.flip(0).cumsum(0).flip(0)[torch.maximum(down[:, None], across[None, :])]


def _unit(change: Tensor, p: float) -> Tensor:
    """Each channel of a window at unit length."""
    return change / torch.linalg.vector_norm(change, ord=p, dim=(-2, -1), keepdim=True).clamp_min(1e-12)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform)


def _inside(numbers: Tensor, height: int, width: int, side: int) -> Tensor:
    """Which pixels lie in a square at a random place: uniform numbers `(M, 2)` to bool `(M, 1, H, W)`."""
    sides = []
    for first, length in zip(_corner(numbers, height, width, side), (height, width), strict=True):
        pixel = torch.arange(length, device=numbers.device)
        sides.append((pixel >= first) & (pixel < first + side))
    return (sides[0][:, :, None] & sides[1][:, None, :])[:, None]


def _pixels(numbers: Tensor, height: int, width: int, side: int) -> Tensor:
    """The same pixels by their numbers, row by row: int64 `(M, 1, side * side)`."""
    top, left = _corner(numbers, height, width, side)
    along = torch.arange(side, device=numbers.device)
    return ((top + along)[:, :, None] * width + (left + along)[:, None, :]).flatten(1)[:, None]


def _corner(numbers: Tensor, height: int, width: int, side: int) -> list[Tensor]:
    """The first row and the first column of the square: int64 `(M, 1)` each."""
    lengths = (height, width)
    return [
        (number * (length - side + 1)).long()[:, None]
        for number, length in zip(numbers.unbind(1), lengths, strict=True)
    ]
