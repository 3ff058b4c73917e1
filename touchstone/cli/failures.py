"""`describe_failure`: why a run failed, in a few lines."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

from .. import FOLDERS

NUM_MESSAGE_LINES = 3
OTHER_PROCESS_ENDED = re.compile(r"Connection (closed|reset) by peer|remote process exited")  # gloo, nccl
SPEAK_FOR_THEMSELVES = ("ValueError", "RuntimeError", "MisconfigurationException", "ArgumentError")


def describe_failure(error: BaseException) -> list[str]:
    """The message of an error, then the line of the user's or this project's code that raised it."""
    if isinstance(error, OSError) and error.strerror:
        what = "" if error.filename is None else f": {error.filename}"
        lines = [f"{error.strerror}{what}", *_what_stands_in_the_way(error.filename)]
    elif _another_process_ended(error):
        lines = ["another process of this run has ended, for which this one waited: its own error says why"]
    else:
        lines = message_lines(error)[:NUM_MESSAGE_LINES]
    return [f"error: {lines[0]}", *lines[1:], _where(error)]


def _another_process_ended(error: BaseException) -> bool:
    """Whether the processes of a run talk to each other, and this is what one hears whose partner is gone."""
    if not isinstance(error, RuntimeError) or not OTHER_PROCESS_ENDED.search(str(error)):
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def message_lines(error: BaseException) -> list[str]:
    """The message, at least one line; it begins with the type where that says more than the message."""
    first, *rest = [line for line in str(error).splitlines() if line.strip()] or [""]
    name = type(error).__name__
    if not first:
        return [name]
    return [first if name in SPEAK_FOR_THEMSELVES else f"{name}: {first}", *rest]


def _what_stands_in_the_way(name: object) -> list[str]:
    """The file that lies where a folder is needed."""
    if not isinstance(name, (str, Path)):
        return []
    found = [folder for folder in Path(name).parents if os.path.isfile(folder)]
    return [f"{found[0]} is a file, and a folder of this name is needed"] if found else []


def _where(error: BaseException) -> str:
    """The innermost line of the user's own code, else of this project's; never of a library or the command line."""
    foreign = ("site-packages", sys.base_prefix, "<frozen", str(Path(__file__).parent), "train.py")
    frames: list[traceback.FrameSummary] = []
    cause: BaseException | None = error
    while cause is not None:  # an error that was raised anew, to say more, began in its cause
        frames += traceback.extract_tb(cause.__traceback__)
        cause = cause.__cause__
    frames = [frame for frame in frames if not any(part in frame.filename for part in foreign)]
    root = Path(__file__).resolve().parents[2]
    project = tuple(str(root / folder) + "/" for folder in (*FOLDERS, "touchstone"))
    own = [frame for frame in frames if not frame.filename.startswith(project)] or frames
    place = f"raised in {own[-1].filename}, line {own[-1].lineno}; " if own else ""
    return f"({place}--traceback shows the way there)"
