"""`read_null`: YAML by `Loader`, and `null` as the value of an option of a class inside a class, on the command line.

jsonargparse reads such a value once for each class on the way, and hands on what it has read as text: `null` arrives at
the innermost class as the text `None`.
"""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from .loader import Loader

MODE = "yaml"
_yaml = get_loader(MODE)


def read_null() -> None:
    """From now on a value that is the text `None` is read as `null` is, and whole numbers are decimal."""
    set_loader(MODE, _read, (yaml.YAMLError,))


def _read(text: str) -> Any:
    if text.strip() == "None":
        return None
    value = _yaml(text)  # which leaves some texts that look like mappings as they are
    return value if isinstance(value, str) else yaml.load(text, Loader=Loader)
