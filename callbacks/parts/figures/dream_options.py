"""`check_dream_options`: options of `dream` that a config gives by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from touchstone.attacks.dreaming.options import ALLOWED, check_options


def check_dream_options(call: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where `dream` has no such option or does not take the value; the message begins with `call`."""
    for name in options:
        if name not in ALLOWED:
            near = difflib.get_close_matches(name, ALLOWED, len(ALLOWED), 0)
            raise ValueError(f"{call} must be options of dream: {', '.join(near)}; got {name!r}")
    try:
        check_options(options)
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None
