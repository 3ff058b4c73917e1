"""Several entries of one callback in a trainer, which form one pass over the same samples."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from touchstone.attacks import Attack

if TYPE_CHECKING:
    from ...robust_accuracy import RobustAccuracy


def common_suite(entries: Sequence[RobustAccuracy]) -> dict[str, Attack]:
    """The attacks of all entries by name.

    Raises:
        ValueError: two attacks have one name, or an entry after the first gives an option another value.
    """
    first, suite = entries[0], dict[str, Attack]()
    options = inspect.signature(type(first)).parameters.values()
    defaults = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    for entry in entries:
        for name, default in defaults.items():
            ours, theirs = getattr(first, name), getattr(entry, name)
            if theirs not in (ours, default):
                raise ValueError(
                    f"RobustAccuracy({name}=...) must be the same for all entries of a trainer, or given to the "
                    f"first alone, since they form one pass; the first has {ours}, another {theirs}"
                )
        taken = sorted(set(entry.attacks) & set(suite))
        if taken:
            raise ValueError(f"two RobustAccuracy entries name an attack {taken[0]!r}: names must be unique")
        suite |= entry.attacks
    return suite
