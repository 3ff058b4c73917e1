"""`Gain`: which margin a climb of a cascade follows, and by which gradients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The margin over a class or, softly, over all.

    Args:
        rank: None for any class; 0 for the one that has come nearest so far, 1 for the next.
        promised: whether it is the one whose own gradient promises most, or the next, where `Survivors.ask_each_class`
            has asked.
        alone: whether that class is to rise above the other wrong ones, whatever the true one does; it then is the one
            that was nearest, or the next, at the first point.
        sharp: whether the margin over all classes is nearly that over the nearest one, however near it has come.
        smooth: whether along gradients that see units at rest (`smooth_backward`).
        wide: whether along gradients that see beyond where units saturate (`past_saturation`).
    """

    rank: int | None = None
    promised: bool = False
    alone: bool = False
    sharp: bool = False
    smooth: bool = False
    wide: bool = False


ANY, SHARP = Gain(), Gain(sharp=True)
