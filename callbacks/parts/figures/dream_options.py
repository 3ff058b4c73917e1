"""`check_dream_options`: options of `dream` that a config gives by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from touchstone.attacks import dream

OPTIONS = {name for name, p in inspect.signature(dream).parameters.items() if p.kind == p.KEYWORD_ONLY}


def check_dream_options(call: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where `dream` has no such option; the message begins with `call`."""
    for name in options:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, len(OPTIONS), 0)
            raise ValueError(f"{call} must be options of dream: {', '.join(near)}; got {name!r}")
