"""`commit`: which commit of this project measured something."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

CODE = Path(__file__).resolve().parents[3]


@cache
def commit() -> str | None:
    """The commit of the folder in which this project's code lies, with `+` where files below it differ from it.

    None where that is no repository, as of an installed wheel, even if one of somebody else's lies around it.
    """
    try:
        _git("ls-files", "--error-unmatch", __file__)
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return _git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    """What git says there, whatever repository the environment names, as it does inside a hook."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(CODE), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5, env=environment)
    return run.stdout.strip()
