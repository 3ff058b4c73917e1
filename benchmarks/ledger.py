"""A ledger of the seconds that callbacks spend inside a fit, which other work of the fit does not disturb."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl

Spent = Mapping[str, Mapping[str, float]]
"""By whom, and on what: "all" of it, and what of that were "gradients" and "forwards"."""


class Ledger:
    """Where the seconds go that callbacks spend: a subclass says which of them are gradients and forwards.

    Args:
        clock: gives the present time in seconds.

    Attributes:
        spent: the seconds, by callback and by what they were spent on.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.active: str | None = None  # who spends at the moment

    def watch(self, callbacks: list[pl.Callback], name: Callable[[pl.Callback, str], str | None]) -> None:
        """Times hooks of callbacks.

        Args:
            callbacks: whose hooks are timed.
            name: of a callback and the name of a hook, by which name its seconds are kept; None for not at all.
        """
        for callback in callbacks:
            for hook in dir(pl.Callback):
                is_own = hook.startswith("on_") and getattr(type(callback), hook) is not getattr(pl.Callback, hook)
                if is_own and (under := name(callback, hook)) is not None:
                    setattr(callback, hook, self._timed(getattr(callback, hook), under))

    def begin(self, name: str) -> None:
        """Called where a hook begins."""
        self.active = name

    def add(self, kind: str, seconds: float) -> None:
        """Adds to what the active callback has spent on something; nothing where none is active."""
        if self.active is not None:
            self.spent[self.active][kind] += seconds

    def _timed(self, hook: Callable, name: str) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            start = self.clock()
            try:
                return hook(*args, **kwargs)
            finally:
                self.add("all", self.clock() - start)
                self.active = None

        return timed


def the_rest(of: Mapping[str, float]) -> float:
    """What a callback has spent beside gradients and forwards."""
    return of["all"] - of.get("gradients", 0.0) - of.get("forwards", 0.0)
