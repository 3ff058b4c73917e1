"""`Sight`: along one axis of the input, which positions each unit of a layer sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Interval = tuple[float, float]
"""First and last position, counted from 0; (inf, -inf) for none."""

NOTHING: Interval = (math.inf, -math.inf)


def union(intervals: Iterable[Interval]) -> Interval:
    """The smallest interval that holds them all."""
    first, last = NOTHING
    for lo, hi in intervals:
        first, last = min(first, lo), max(last, hi)
    return first, last


@dataclass(frozen=True)
class Window:
    """How the units of a layer look at those of the layer below, along one axis.

    Attributes:
        size: how many units the layer has.
        taps: the positions below that a unit looks at; those outside the layer below are padding.
        period, advance: unit `o + period` looks at the positions of unit `o`, `advance` further on.
        at_border: the same as `taps` where padding repeats positions of the layer below; None where it does not.
    """

    size: int
    taps: Callable[[int], Sequence[int]]
    period: int
    advance: int
    at_border: Callable[[int], Sequence[int]] | None = None


@dataclass(frozen=True)
class Staircase:
    """An interval for every whole number, also beyond a layer's ends: `at(i + period)` is `at(i)` moved on."""

    steps: tuple[Interval, ...]
    advance: int

    def at(self, unit: int) -> Interval:
        """The interval of a unit, real or beyond the ends."""
        turns, rest = divmod(unit, len(self.steps))
        first, last = self.steps[rest]
        return first + turns * self.advance, last + turns * self.advance

    @property
    def stride(self) -> Fraction:
        """Positions of the input from one unit to the next, on average."""
        return Fraction(self.advance, len(self.steps))

    def through(self, window: Window) -> Staircase:
        """What is seen through a window on the units that see this."""
        turns = len(self.steps) // math.gcd(len(self.steps), window.advance)
        steps = [union(self.at(tap) for tap in window.taps(unit)) for unit in range(window.period * turns)]
        return Staircase(tuple(steps), window.advance * turns * self.advance // len(self.steps))

    def joined(self, other: Staircase) -> Staircase:
        """The union with one of the same stride."""
        period = math.lcm(len(self.steps), len(other.steps))
        steps = [union((self.at(unit), other.at(unit))) for unit in range(period)]
        return Staircase(tuple(steps), self.advance * period // len(self.steps))


@dataclass(frozen=True)
class Sight:
    """What each unit along an axis sees of the input, inside its borders and as if it had none.

    Attributes:
        inside: for each unit, the positions of the input that it depends on.
        endless: the same for an input and layers without ends, as the union of these; their strides differ.
    """

    inside: tuple[Interval, ...]
    endless: tuple[Staircase, ...]

    @classmethod
    def of_input(cls, size: int) -> Sight:
        """Each position sees itself."""
        return cls(tuple((i, i) for i in range(size)), (Staircase(((0, 0),), 1),))

    def __len__(self) -> int:
        return len(self.inside)

    def through(self, window: Window) -> Sight:
        """What is seen through a window on these units."""
        real = range(len(self))
        taps = window.at_border or window.taps
        inside = [union(self.inside[tap] for tap in taps(unit) if tap in real) for unit in range(window.size)]
        return Sight(tuple(inside), _merged(stairs.through(window) for stairs in self.endless))

    def everywhere(self, size: int = 1) -> Sight:
        """Every unit of a new axis sees what all of these see together."""
        whole = range(len(self))
        return self.through(Window(size, lambda _: whole, 1, len(self) if size == 1 else 0))

    def spread(self, size: int) -> Sight:
        """A single unit repeated."""
        return self if len(self) == size else self.through(Window(size, lambda _: (0,), 1, 0))

    def joined(self, other: Sight) -> Sight:
        """The union, unit by unit; a single unit is repeated."""
        size = max(len(self), len(other))
        mine, theirs = self.spread(size), other.spread(size)
        inside = tuple(union(pair) for pair in zip(mine.inside, theirs.inside, strict=True))
        return Sight(inside, _merged((*mine.endless, *theirs.endless)))

    @property
    def stride(self) -> float:
        """Positions of the input from one unit to the next."""
        return float(max(abs(stairs.stride) for stairs in self.endless))  # negative the other way round

    @property
    def width(self) -> int:
        """The most positions that a unit would see of an input without borders."""
        spans = [union(stairs.at(unit) for stairs in self.endless) for unit in range(len(self))]
        return int(max(0, *(last - first + 1 for first, last in spans)))


def _merged(stairs: Iterable[Staircase]) -> tuple[Staircase, ...]:
    found: dict[Fraction, Staircase] = {}
    for each in stairs:
        found[each.stride] = found[each.stride].joined(each) if each.stride in found else each
    return tuple(found.values())
