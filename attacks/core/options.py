"""`check_count` and its kind: an option that is not what it must be is refused in words that begin with its name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np


def is_whole_number(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, of Python or of numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number, of Python or of numpy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(option: str, value: object) -> None:
    """Raises ValueError where `value`, given as an `option` such as `evaluate(seed=...)`, is no whole number."""
    if not is_whole_number(value):
        raise ValueError(f"{option} must be a whole number, got {value!r}")


def check_count(option: str, value: object, *, least: int = 1, none_means: str | None = None) -> None:
    """Raises ValueError where `value` is not a whole number of at least `least`, or None, if that means something.

    Args:
        option: what it was given as, as in `PGD(num_steps=...)`; the message begins with it.
        value: what was given.
        least: the smallest that will do.
        none_means: what None stands for, in words; None where it is not allowed.
    """
    if value is None and none_means:
        return
    if not is_whole_number(value) or value < least:
        kind = "" if is_whole_number(value) else "a whole number "
        or_none = f", or None for {none_means}," if none_means else ","
        raise ValueError(f"{option} must be {kind}>= {least}{or_none} got {value!r}")


def check_counts(owner: object, *names: str, least: int = 1) -> None:
    """Raises ValueError where one of these fields of `owner` is not a whole number of at least `least`."""
    for name in names:
        check_count(f"{type(owner).__name__}({name}=...)", getattr(owner, name), least=least)


def check_flag(option: str, value: object) -> None:
    """Raises ValueError where `value`, given as an `option` such as `evaluate(check_8bit=...)`, is no truth value."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{option} must be True or False, got {value!r:.80}")


def check_flags(owner: object, *names: str) -> None:
    """Raises ValueError where one of these fields of `owner` is no truth value: "no" would count as True."""
    for name in names:
        check_flag(f"{type(owner).__name__}({name}=...)", getattr(owner, name))


def check_numbers(owner: object, *names: str) -> None:
    """Raises ValueError where one of these fields of `owner` is no number, before it is compared with one."""
    for name in names:
        value = getattr(owner, name)
        if not is_number(value):
            raise ValueError(f"{type(owner).__name__}({name}=...) must be a number, got {value!r:.80}")


def check_above(option: str, value: object, bound: float = 0, *, or_equal: bool = False) -> None:
    """Raises ValueError where `value` is not finite and above `bound`, or equal to it where that will do.

    Args:
        option: what it was given as, as in `dream(step_size=...)`; the message begins with it.
        value: what was given.
        bound: finite.
        or_equal: whether the bound itself will do.
    """
    if not is_number(value) or not (bound < value < float("inf") or or_equal and value == bound):
        kind = "" if is_number(value) else "a number "
        raise ValueError(f"{option} must be {kind}{'>=' if or_equal else '>'} {bound:g} and finite, got {value!r}")


def check_positive(owner: object, *names: str, or_zero: bool = False) -> None:
    """Raises ValueError where one of these fields of `owner` is not finite and > 0, or >= 0 where zero will do."""
    for name in names:
        check_above(f"{type(owner).__name__}({name}=...)", getattr(owner, name), or_equal=or_zero)


def check_choice(option: str, value: object, choices: Sequence[str], *, hint: str = "") -> None:
    """Raises ValueError where `value` is not one of some words; the message names the nearest, if one is near.

    Args:
        option: what it was given as, as in `AutoAttack(version=...)`; the message begins with it.
        value: what was given.
        choices: the words.
        hint: what else there is to say, with what parts it from the sentence.
    """
    if isinstance(value, str) and value in choices:
        return
    near = difflib.get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
    words = ", ".join(map(repr, choices))
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{option} must be one of {words}, got {value!r:.80}{meant}{hint}")
