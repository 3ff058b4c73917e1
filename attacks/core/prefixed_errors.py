"""`prefixed_errors`: what goes wrong in a net of the attacker's own, in words that name the net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .out_of_memory import is_out_of_memory


@contextmanager
def prefixed_errors(prefix: str) -> Iterator[None]:
    """Turns the errors inside into ValueErrors that begin with `prefix`, but not one that says that memory is short."""
    try:
        yield
    except (ValueError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{prefix}, {error}") from error
