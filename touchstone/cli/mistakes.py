"""`UsageError`, and what was probably meant: for the messages about what the user gave."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class UsageError(Exception):
    """What the user can put right. The message is one line that stands alone; `__notes__` may hold more."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean ...?"`, or the valid names where none is near and they are few."""
    valid = sorted(set(valid))
    near = difflib.get_close_matches(name, valid, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(valid)}" if 0 < len(valid) <= 12 else ""


def nearest_file(path: Path) -> str:
    """The same for files: one of this name in a folder below, else the nearest beside `path` with such an ending."""
    below = sorted(filter(os.path.exists, (folder / path.name for folder in path.parent.glob("*"))))
    there = filter(os.path.exists, path.parent.glob("*"))  # and no link that leads nowhere
    files = sorted(there, key=lambda other: other.suffix == path.suffix)  # of one stem, the last counts
    endings = difflib.get_close_matches(path.suffix, {other.suffix for other in files})
    beside = {other.stem: other for other in files if other.suffix in endings or not path.suffix}
    near = below or [beside[stem] for stem in difflib.get_close_matches(path.stem, beside, n=1)]
    return f"; did you mean {str(near[0])!r}?" if near else ""
