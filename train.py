"""The entry: `python train.py` trains and attacks a network on digits; with arguments it is a LightningCLI.

`python train.py {fit,validate,test,predict} --config configs/NAME.yaml`; `--help` and `fit --help` list the rest.
`python train.py verify RUN_FOLDER` measures the verdicts of a run again; `python train.py gallery` makes a page of
pictures, `figures/index.html`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from touchstone import FOLDERS
from touchstone.cli.jobs import JOBS, run_job
from touchstone.cli.kept_memory import keep_freed_memory
from touchstone.cli.output import Output
from touchstone.cli.stopping import Stopping
from touchstone.cli.subcommand import place_of_subcommand
from touchstone.runs.shown import shown

ROOT = Path(__file__).resolve().parent
MAIN_JOB = ("fit", "--config", str(ROOT / "configs" / "digits.yaml"))
NUM_ERROR_LINES = 5
NEEDED = ("torch", "lightning", "jsonargparse", "yaml", "numpy", "torchmetrics")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, and says in at most five lines on stderr why it failed.

    Args:
        arguments: None for those of the process. `--traceback`, anywhere among them, shows the whole error.

    Returns:
        The exit code: 0; 2 for a usage error, 1 for a failed run, 130 and 143 for one that SIGINT or SIGTERM ended.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    wanted = [argument for argument in given if argument != "--traceback"]
    with Stopping() as stopping, Output() as output:
        try:
            _import_as_the_user_does()
            if wanted and wanted[0] in JOBS:
                return run_job(wanted[0], wanted[1:], stopping)
            with stopping.until_imported():  # which takes seconds
                from touchstone.cli.command_line import CommandLine

            CommandLine(wanted or MAIN_JOB, stopping, then_test=not wanted)
        except BaseException as error:
            if stopping.signal is None and _is_answered(error):
                return int(output.is_lost)
            if "--traceback" in given:
                traceback.print_exception(error)
            code, lines = _in_words(error, stopping, wanted)
            sys.stdout.flush()
            if code == 1 or os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes, one speaks for all
                print(*map(shown, lines[:NUM_ERROR_LINES]), sep="\n", file=sys.stderr, flush=True)
            return code
    return 0


def _is_answered(error: BaseException) -> bool:
    """Whether a parser has printed what was asked for, as by `--help`: whoever else leaves by SystemExit has failed."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, SystemExit) and not error.code and frame.f_globals.get("__name__") == "argparse"


def _in_words(error: BaseException, stopping: Stopping, arguments: Sequence[str]) -> tuple[int, list[str]]:
    """The exit code, and the lines that say why."""
    if isinstance(error, ModuleNotFoundError) and error.name in NEEDED:
        return 1, [
            f"error: {error.name} is not installed for {sys.executable}",
            "`make train` sets up an environment: then run .venv/bin/python train.py",
            "(in an environment of your own: python -m pip install -r requirements.txt)",
        ]
    from touchstone.cli.failures import describe_failure
    from touchstone.cli.mistakes import UsageError

    notes = getattr(error, "__notes__", [])
    if stopping.signal is not None:
        return stopping.exit_code, [f"stopped by {stopping.signal.name}", *notes]
    if isinstance(error, UsageError):
        subcommand = _subcommand(arguments)
        what = "says what it takes" if subcommand in JOBS else "lists the keys"
        hint = f"(python train.py {subcommand} --help {what}; --traceback shows more)"
        return 2, [f"error: {error}", *notes, hint]
    return 1, [*describe_failure(error), *notes]


def _subcommand(arguments: Sequence[str]) -> str:
    """The subcommand, `fit` where there is none."""
    place = place_of_subcommand(arguments, ("fit", "validate", "test", "predict", *JOBS))
    return "fit" if place is None else arguments[place]


def _import_as_the_user_does() -> None:
    """Lets class paths name modules of the current folder, and modules of this project by one name only.

    Python puts the folder of this file first on `sys.path`. There it would hide a user's own `attacks/`, and offer
    `touchstone.attacks` a second time as `attacks`, with classes that are not the same.
    """
    others = [folder for folder in sys.path if folder != str(ROOT)]
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:  # it was removed
        error.filename = "the current folder"
        raise
    sys.path[:] = list(dict.fromkeys([*others, here, str(ROOT)]))
    for name in FOLDERS:
        found = PathFinder.find_spec(name)
        if found is not None and found.origin is not None and Path(found.origin).parent.parent == ROOT:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it is an error


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
