"""`Loader`: YAML as jsonargparse reads it, but for whole numbers, which are decimal; `install_loader` puts it there.

YAML 1.1 takes 076 for 62 and 1:30 for 90. Here such a value is a text, of which an option that takes a number makes 76,
as files of pictures count, and one that takes a time or a name has it as it was written.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse.typing import register_type

MODE = "yaml"
_of_jsonargparse = get_loader(MODE)

TAG = "tag:yaml.org,2002:"
INT = re.compile(r"[-+]?(?:0|[1-9][\d_]*|0x[\da-fA-F_]+|0b[01_]+)$")
FLOAT = re.compile(
    r"(?:[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF))"
    r"|\.\d[\d_]*(?:[eE][-+]?\d+)?|\.(?:nan|NaN|NAN))$"
)
"""Floats; `1e-3` counts as one, which YAML 1.1 reads as text."""


class Loader(yaml.SafeLoader):
    """SafeLoader with decimal integers, and dates left as text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.removeprefix(TAG) not in ("int", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver(f"{TAG}int", INT, list("-+0123456789"))


def install_loader() -> None:
    """From now on jsonargparse reads by `Loader`, the text `None` as `null`, and a `torch.device` by its name.

    On the command line it reads the value of an option of a class inside a class once for each class on the way, and
    hands on what it has read as text: `null` arrives at the innermost class as `None`.
    """
    set_loader(MODE, _read, (yaml.YAMLError,))
    # As that of `StochasticWeightAveraging`; jsonargparse would save words that it cannot read again.
    register_type(torch.device, str, torch.device, (RuntimeError,), fail_already_registered=False)


def _read(text: str) -> Any:
    if text.strip() == "None":
        return None
    value = _of_jsonargparse(text)  # which leaves some texts that look like mappings as they are
    return value if isinstance(value, str) else yaml.load(text, Loader=Loader)
