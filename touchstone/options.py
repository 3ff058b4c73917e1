"""`check_count` and its kind: an option that is not what it must be is refused in words that begin with its name.

Everywhere `option` is what the value was given as, as in `PGD(num_steps=...)`; `owner` the object whose fields `names`
are checked, or the name of its class or of a function, with what is no field yet by keyword; and `none_means` what None
stands for, in words, None where it is not allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np


def is_whole_number(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, of Python, numpy or a tensor without dimensions; True and False are none."""
    value = _plain(value)
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number, of Python, numpy or a tensor without dimensions; True and False are none."""
    value = _plain(value)
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(option: str, value: object) -> None:
    """Raises ValueError where `value` is no whole number."""
    if not is_whole_number(value):
        raise ValueError(f"{option} must be a whole number, got {value!r}")


def check_count(option: str, value: object, *, least: int = 1, none_means: str | None = None) -> None:
    """Raises ValueError where `value` is not a whole number of at least `least`, or None, if that means something."""
    if value is None and none_means:
        return
    if not is_whole_number(value) or value < least:
        kind = "" if is_whole_number(value) else "a whole number "
        raise ValueError(f"{option} must be {kind}>= {least}{_or_none(none_means)} got {value!r:.80}")


def check_counts(owner: object, *names: str, least: int = 1, none_means: str | None = None, **given: object) -> None:
    """Raises ValueError where an option is not a whole number of at least `least`, or None, if that means something."""
    for option, value in _options(owner, names, given):
        check_count(option, value, least=least, none_means=none_means)


def check_flag(option: str, value: object) -> None:
    """Raises ValueError where `value` is no truth value."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{option} must be True or False, got {value!r:.80}")


def check_flags(owner: object, *names: str, **given: object) -> None:
    """Raises ValueError where an option is no truth value: "no" would count as True."""
    for option, value in _options(owner, names, given):
        check_flag(option, value)


def check_numbers(owner: object, *names: str, **given: object) -> None:
    """Raises ValueError where an option is no number, before it is compared."""
    for option, value in _options(owner, names, given):
        if not is_number(value):
            raise ValueError(f"{option} must be a number, got {value!r:.80}")


def check_above(
    option: str,
    value: object,
    bound: float = 0,
    *,
    or_equal: bool = False,
    or_infinite: bool = False,
    none_means: str | None = None,
) -> None:
    """Raises ValueError where `value` is not finite and above a finite `bound`, but for what else will do."""
    if value is None and none_means:
        return
    if not is_number(value) or not (
        bound < value < float("inf") or or_equal and value == bound or or_infinite and value == float("inf")
    ):
        kind = "" if is_number(value) else "a number "
        allowed = f"{'>=' if or_equal else '>'} {bound:g}{'' if or_infinite else ' and finite'}"
        raise ValueError(f"{option} must be {kind}{allowed}{_or_none(none_means)} got {value!r:.80}")


def check_positive(
    owner: object,
    *names: str,
    or_zero: bool = False,
    or_infinite: bool = False,
    none_means: str | None = None,
    **given: object,
) -> None:
    """Raises ValueError where an option is not > 0 and finite, but for what else will do."""
    for option, value in _options(owner, names, given):
        check_above(option, value, or_equal=or_zero, or_infinite=or_infinite, none_means=none_means)


def check_between(
    option: str, value: object, low: float, high: float, ends: str = "[]", *, none_means: str | None = None
) -> None:
    """Raises ValueError where `value` is no number from `low` to `high`; `ends` says whether they will do: `"[)"`."""
    if value is None and none_means:
        return
    if not is_number(value) or not (
        low < value < high or value == low and ends[0] == "[" or value == high and ends[1] == "]"
    ):
        kind = "" if is_number(value) else "a number "
        allowed = f"in {ends[0]}{low:g}, {high:g}{ends[1]}"
        raise ValueError(f"{option} must be {kind}{allowed}{_or_none(none_means)} got {value!r:.80}")


def check_choice(option: str, value: object, choices: Sequence[str], *, hint: str = "") -> None:
    """Raises ValueError where `value` is not one of some words; the message names the nearest, and ends with `hint`."""
    if isinstance(value, str) and value in choices:
        return
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(value.lower(), lowered, n=1) if isinstance(value, str) else []
    words = ", ".join(map(repr, choices))
    meant = f"; did you mean {lowered[near[0]]!r}?" if near else ""
    raise ValueError(f"{option} must be one of {words}, got {value!r:.80}{meant}{hint}")


def check_kind(option: str, value: object, kind: type) -> None:
    """Raises ValueError where `value` is no `kind`, before it is asked for what only that has."""
    if not isinstance(value, kind):
        raise ValueError(f"{option} must be an instance of {kind.__name__}, got {value!r:.80}")


def check_names(option: str, value: object, what: str, *, or_none: bool = False) -> None:
    """Raises ValueError where `value` is no list or set of names of `what`: a text would be read letter by letter."""
    names = value if isinstance(value, Sequence | Set) and not isinstance(value, str) else None
    if names is None or not (names or or_none) or not all(isinstance(name, str) for name in names):
        at_least = "" if or_none else ", at least one"
        raise ValueError(f"{option} must be a list of {what}{at_least}, got {value!r:.80}")


def _plain(value: object) -> object:
    """The number in a tensor without dimensions; torch is not asked for, since this is imported before it."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _or_none(none_means: str | None) -> str:
    return f", or None for {none_means}," if none_means else ","


def _options(owner: object, names: Sequence[str], given: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """What each option was given as, and its value."""
    call = owner if isinstance(owner, str) else type(owner).__name__
    for name, value in {**{name: getattr(owner, name) for name in names}, **given}.items():
        yield f"{call}({name}=...)", value
