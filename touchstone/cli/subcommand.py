"""Which subcommand a command line names, and what is wrong where it names none, or has options before it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from .mistakes import UsageError, nearest


def place_of_subcommand(arguments: Sequence[str], valid: Iterable[str]) -> int | None:
    """Where the subcommand stands, None where there is none; the value of an option may have the same name."""
    wanted = {*valid}
    for place, word in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        is_option = before.startswith("-") and "=" not in before and not re.fullmatch(r"-[\d.]+", before)
        if word in wanted and not is_option:
            return place
    return None


def check_subcommand(arguments: Sequence[str], valid: Sequence[str], *, beside: Iterable[str]) -> None:
    """Raises UsageError where arguments, at least one, name none of the `valid` subcommands; others are `beside`."""
    first = arguments[0]
    if not first.startswith("-") and first not in valid:
        raise UsageError(f"there is no subcommand {first!r}{nearest(first, [*valid, *beside])}")
    if not {*valid, "-h", "--help"} & set(arguments):
        raise UsageError(
            f"no subcommand is given; there is {', '.join(valid)}: python train.py fit {' '.join(arguments)}"
        )


def explain_order(arguments: Sequence[str], said: str, valid: Iterable[str]) -> UsageError:
    """What is wrong where options stand before the subcommand, which takes them behind it; `said` by a parser."""
    place = place_of_subcommand(arguments, valid)
    if place is None:
        return UsageError(said)
    subcommand, options = arguments[place], [*arguments[:place], *arguments[place + 1 :]]
    order = UsageError(f"options go behind the subcommand: {shlex.join(['python', 'train.py', subcommand, *options])}")
    vars(order)["__notes__"] = [f"(as they stand: {said})"]  # `add_note` is of Python 3.11
    return order
