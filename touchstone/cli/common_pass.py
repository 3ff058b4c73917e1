"""`check_common_pass`: what keeps the entries of `RobustAccuracy` from one pass, said before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback

from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.passes.entries import common_suite

from .given import Given
from .mistakes import UsageError


def check_common_pass(callbacks: Sequence[Callback], given: Given | None) -> None:
    """Checks the entries of `RobustAccuracy` together, the first two, then three, to know which one does not fit.

    Args:
        callbacks: those of the config, in its order.
        given: what was given to the subcommand, None where that is not known.

    Raises:
        UsageError: an entry names an attack as an earlier one does, or gives an option another value; with its place.
    """
    entries: list[RobustAccuracy] = []
    for number, callback in enumerate(callbacks):
        if not isinstance(callback, RobustAccuracy):
            continue
        entries.append(callback)
        try:
            common_suite(entries)
        except ValueError as error:
            place = f"{given.value['trainer'].value['callbacks'].value[number].place}: " if given is not None else ""
            raise UsageError(f"{place}{error}") from error
