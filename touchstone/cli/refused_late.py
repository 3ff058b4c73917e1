"""`refused_late`: what an object of the config says that is constructed in the run, as an optimizer is."""

from __future__ import annotations

import traceback
from types import FrameType

from .failures import message_lines
from .mistakes import UsageError

CONSTRUCTS = "jsonargparse"


def refused_late(error: BaseException) -> UsageError | None:
    """The refusal of a value of the config by the class that it is for; None where the `error` was raised elsewhere."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    at_work = [place for place, frame in enumerate(frames) if _module(frame).startswith(CONSTRUCTS)]
    if not at_work or not isinstance(error, Exception):
        return None
    inside = frames[at_work[-1] + 1 :]
    if not inside:  # the call itself does not fit, which names the class
        return UsageError(message_lines(error)[0])
    first = inside[0]  # the constructor, where it is not an error of jsonargparse's own
    if first.f_code.co_name != "__init__" or "self" not in first.f_locals:
        return None
    name, line = type(first.f_locals["self"]).__name__, message_lines(error)[0]
    return UsageError(line if line.startswith(name) else f"{name}: {line}")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
