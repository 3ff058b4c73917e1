"""`check_at_least`: counts and seeds that a data module is given."""

from __future__ import annotations


def check_at_least(least: int, owner: object, **given: int | None) -> None:
    """Raises ValueError, with the name of `owner`'s class, where an option is below `least`; None is not looked at."""
    for name, value in given.items():
        if value is not None and value < least:
            raise ValueError(f"{type(owner).__name__}({name}=...) must be >= {least}, got {value}")
