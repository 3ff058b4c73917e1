"""`read_null`: `null` as the value of an option of a class inside a class, on the command line.

jsonargparse reads such a value once for each class on the way, and hands on what it has read as text: `null` arrives at
the innermost class as the text `None`.
"""

from __future__ import annotations

from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

MODE = "yaml"
_yaml = get_loader(MODE)


def read_null() -> None:
    """From now on a value that is the text `None` is read as `null` is."""
    set_loader(MODE, _read, (YAMLError,))


def _read(text: str) -> Any:
    return None if text.strip() == "None" else _yaml(text)
