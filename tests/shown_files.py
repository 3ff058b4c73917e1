"""The files that the documents show, for tests that write and run them as a user would."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md")


def blocks(document: Path) -> dict[str, str]:
    """The code blocks behind a mark `<!-- test: NAME -->`, by name."""
    found = re.findall(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", document.read_text(), flags=re.DOTALL)
    return dict(found)


def shown_files(root: Path) -> dict[str, str]:
    """Those that are called as files, of all documents."""
    found = (blocks(path) for pattern in DOCUMENTS for path in root.glob(pattern))
    return {name: text for each in found for name, text in each.items() if "." in name}
