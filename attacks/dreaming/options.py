"""`check_options`: the options of `dream`, of the right types and inside their ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from touchstone.options import check_above, check_choice, check_count, check_flag, check_whole

from .layers import OBJECTIVES

HINT = "; a class's logit is the layer of logits with the number of the class, as layer fc:76"

ALLOWED: Mapping[str, Callable[[str, Any], None]] = {
    "num_steps": check_count,
    "step_size": check_above,
    "objective": partial(check_choice, choices=tuple(OBJECTIVES), hint=HINT),
    "num_octaves": check_count,
    "octave_scale": partial(check_above, bound=1),
    "jitter": partial(check_count, least=0),
    "smoothing": partial(check_above, or_equal=True),
    "variation_penalty": partial(check_above, or_equal=True),
    "decorrelated": check_flag,
    "seed": check_whole,
}
"""By the names of the options, what refuses a value: `check(option, value)`."""


def check_options(options: Mapping[str, Any]) -> None:
    """Checks options of `dream` that are given by name, each of which there must be.

    Raises:
        ValueError: a value is of another type or outside its range, or two of them exclude each other.
    """
    for name, value in options.items():
        ALLOWED[name](f"dream({name}=...)", value)
    if options.get("smoothing") and options.get("decorrelated"):
        raise ValueError("dream(smoothing=..., decorrelated=...): coefficients have no neighbours to smooth over")
