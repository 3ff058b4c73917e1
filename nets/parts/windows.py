"""The windows of convolution, pooling, upsampling, padding and slicing, along one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from .sight import Window


def strided(size: int, *, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    """Convolution and pooling: unit o looks at o s - p, o s - p + d, and so on."""

    def taps(unit: int) -> range:
        first = unit * stride - padding
        return range(first, first + (kernel - 1) * dilation + 1, dilation)

    return Window(size, taps, 1, stride)


def transposed(size: int, *, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    """Transposed convolution: unit o takes from i wherever o + p = i s + d k for some k of the kernel."""

    def taps(unit: int) -> list[int]:
        reached = [unit + padding - dilation * k for k in range(kernel)]
        return [place // stride for place in reached if place % stride == 0]

    return Window(size, taps, stride, 1)


def adaptive(size: int, below: int) -> Window:
    """Adaptive pooling of `below` units to `size`: unit o looks at floor(o b / s) to ceil((o + 1) b / s)."""
    return Window(size, lambda unit: range(unit * below // size, -(-(unit + 1) * below // size)), size, below)


def nearest(size: int, scale: Fraction, *, exact: bool = False) -> Window:
    """Nearest-neighbour upsampling by `scale`: unit o repeats floor(o / scale), or exactly floor((o + 1/2) / scale)."""
    num, den = scale.numerator, scale.denominator
    return Window(size, lambda unit: ((2 * unit + exact) * den // (2 * num),), num, den)


def interpolated(size: int, below: int, scale: Fraction, *, reach: int, align_corners: bool = False) -> Window:
    """Linear (reach 1) and cubic (reach 2) interpolation, which repeats the units at the border.

    Unit o lies at (o + 1/2) / scale - 1/2 between its neighbours, or with aligned corners at o (b - 1) / (s - 1).
    """
    step = Fraction(below - 1, max(size - 1, 1)) if align_corners else 1 / scale
    first = Fraction(0) if align_corners else (step - 1) / 2

    def taps(unit: int) -> range:
        place = first + unit * step
        floor = math.floor(place)
        return range(floor - reach + 1, floor + reach + 1) if place != floor else range(floor, floor + 1)

    def at_border(unit: int) -> list[int]:
        place = first + unit * step
        inside = [place] if reach > 1 or place > 0 else [Fraction(0)]  # linear: nothing beyond the first is mixed in
        floor = math.floor(inside[0])
        reached = range(floor - reach + 1, floor + reach + 1) if inside[0] != floor else (floor,)
        return [min(max(tap, 0), below - 1) for tap in reached]

    return Window(size, taps, step.denominator, step.numerator, at_border)


def padded(size: int, below: int, *, before: int, mode: str = "constant") -> Window:
    """Padding by constants, or by what `reflect`, `replicate` or `circular` repeats; negative padding cuts off."""

    def taps(unit: int) -> tuple[int]:
        return (unit - before,)

    def at_border(unit: int) -> tuple[int]:
        place = unit - before
        if mode == "replicate":
            return (min(max(place, 0), below - 1),)
        if mode == "circular":
            return (place % below,)
        return (below - 1 - abs(below - 1 - abs(place)),)

    return Window(size, taps, 1, 1, None if mode == "constant" else at_border)


def sliced(size: int, *, start: int, step: int = 1) -> Window:
    """Every `step`-th unit from `start`."""
    return Window(size, lambda unit: (start + unit * step,), 1, step)


def flipped(size: int) -> Window:
    """The other way round."""
    return Window(size, lambda unit: (size - 1 - unit,), 1, -1)


def rolled(size: int, *, shift: int) -> Window:
    """Shifted, with what falls off one end at the other."""
    return Window(size, lambda unit: (unit - shift,), 1, 1, lambda unit: ((unit - shift) % size,))


def shuffled(size: int, *, factor: int) -> Window:
    """Units whose channels become `factor` units along the axis each."""
    return Window(size, lambda unit: (unit // factor,), factor, 1)


def gathered(places: Sequence[Sequence[int]]) -> Window | None:
    """Unit o takes from the places in the o-th row; None where those in the middle do not move on evenly.

    Beyond the ends, the middle goes on as it is.
    """
    middle = len(places) // 2
    own = tuple(places[middle])
    steps = [tuple(b - a for a, b in zip(own, places[unit], strict=True)) for unit in (middle - 1, middle + 1)
             if 0 <= unit < len(places)]  # fmt: skip
    advances = {abs(step) for each in steps for step in each}
    if len(advances) > 1:
        return None
    advance = steps[-1][0] if steps else 1

    def taps(unit: int) -> list[int]:
        return [tap + (unit - middle) * advance for tap in own]

    return Window(len(places), taps, 1, advance, lambda unit: places[unit])
