"""`check_options`: the options of `dream`, of the right types and inside their ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .layers import OBJECTIVES

HINT = "; a class's logit is the layer of logits with the number of the class, as layer fc:76"


@dataclass(frozen=True)
class Allowed:
    """What an option may be.

    Attributes:
        is_of_type: whether a value is of the right type.
        type: that, in words.
        is_inside: whether a value of the right type is inside the range.
        range: that, in words; empty for none.
        hint: what else there is to say.
    """

    is_of_type: Callable[[Any], bool]
    type: str
    is_inside: Callable[[Any], bool]
    range: str = ""
    hint: str = ""


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_objective(value: object) -> bool:
    return value in list(OBJECTIVES)  # which need not be hashable


def _is_any(value: object) -> bool:
    return True


def _at_least(least: int) -> Allowed:
    return Allowed(_is_whole, "a whole number", lambda value: value >= least, f">= {least}")


def _above(least: float) -> Allowed:
    return Allowed(_is_number, "a number", lambda value: least < value < math.inf, f"> {least} and finite")


NOT_NEGATIVE = Allowed(_is_number, "a number", lambda value: 0 <= value < math.inf, ">= 0 and finite")
ALLOWED: Mapping[str, Allowed] = {
    "num_steps": _at_least(1),
    "step_size": _above(0),
    "objective": Allowed(
        _is_any, "", lambda value: value in list(OBJECTIVES), " or ".join(map(repr, OBJECTIVES)), HINT
    ),
    "num_octaves": _at_least(1),
    "octave_scale": _above(1),
    "jitter": _at_least(0),
    "smoothing": NOT_NEGATIVE,
    "variation_penalty": NOT_NEGATIVE,
    "decorrelated": Allowed(lambda value: isinstance(value, bool), "True or False", _is_any),
    "seed": Allowed(_is_whole, "a whole number", _is_any),
}
"""By the names of the options."""


def check_options(options: Mapping[str, Any]) -> None:
    """Checks options of `dream` that are given by name, each of which there must be.

    Raises:
        ValueError: a value is of another type or outside its range, or two of them exclude each other.
    """
    for name, value in options.items():
        allowed = ALLOWED[name]
        is_of_type = allowed.is_of_type(value)
        if not is_of_type or not allowed.is_inside(value):
            words = ["" if is_of_type else allowed.type, allowed.range]
            raise ValueError(f"dream({name}=...) must be {' '.join(filter(None, words))}, got {value!r}{allowed.hint}")
    if options.get("smoothing") and options.get("decorrelated"):
        raise ValueError("dream(smoothing=..., decorrelated=...): coefficients have no neighbours to smooth over")
