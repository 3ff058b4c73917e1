"""What every rule is made of: what an argument sees, and windows on its last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .dependence import NoRuleError, Seen
from .windows import Window

See = Callable[[Any], "Seen | None"]
Rule = Callable[[See, Sequence[Any], Any], Seen]
"""`rule(see, args, output)`: what an output sees; `see` says it of an argument. Defaults are filled in."""


def looking(seen: Seen, output: Tensor, windows: Sequence[Callable[[int], Window]]) -> Seen:
    """Each of the last dimensions is looked at through a window, made from its length; channels are mixed."""
    first = output.ndim - len(windows)
    for dim, window in enumerate(windows, start=first):
        seen = seen.with_sight(dim, lambda sight, window=window: sight.through(window(len(sight))))  # type: ignore[misc]
    return seen.with_channels(output.shape)


def known(see: See, tensor: Tensor) -> Seen:
    """What an argument sees that must be the one that depends on the input."""
    seen = see(tensor)
    if seen is None:
        raise NoRuleError("something else of it than its first argument depends on the input")
    return seen
