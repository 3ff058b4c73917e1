"""`JOBS`: what `python train.py` does beside Lightning's subcommands, each a function in a file of its name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from .stopping import Stopping

JOBS = {
    "verify": "`verify RUN_FOLDER` measures the verdicts of a run again",
    "gallery": "`gallery [PICTURES]` makes a page of pictures",
}


def run_job(name: str, arguments: Sequence[str], stopping: Stopping) -> int:
    """Runs one of `JOBS` and gives its exit code, or prints its `HELP` where that is asked for.

    Raises:
        UsageError: the arguments, or the files that they name, are wrong.
    """
    with stopping.until_imported():
        module = importlib.import_module(f".{name}", __package__)
    if {"-h", "--help"} & set(arguments):
        print(module.HELP)
        return 0
    return getattr(module, name)(arguments, stopping)
