"""`Loader`: YAML as jsonargparse reads it, but for whole numbers, which are decimal.

YAML 1.1 takes 076 for 62 and 1:30 for 90. Here such a value is a text, of which an option that takes a number makes 76,
as files of pictures count, and one that takes a time or a name has it as it was written.
"""

from __future__ import annotations

import re

import yaml

TAG = "tag:yaml.org,2002:"
INT = re.compile(r"[-+]?(?:0|[1-9][\d_]*|0x[\da-fA-F_]+|0b[01_]+)$")
FLOAT = re.compile(
    r"(?:[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF))"
    r"|\.\d[\d_]*(?:[eE][-+]?\d+)?|\.(?:nan|NaN|NAN))$"
)
"""1e-3 is one."""


class Loader(yaml.SafeLoader):
    """See above; dates are texts."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.removeprefix(TAG) not in ("int", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver(f"{TAG}int", INT, list("-+0123456789"))
