"""Logs: written whole or not at all, and no reason to end a training, which costs more than they do."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@contextmanager
def may_be_lost() -> Iterator[None]:
    """A block that writes logs: where the disk refuses them, it ends there, with a warning instead of the error."""
    try:
        yield
    except OSError as error:
        say_lost(error.strerror or str(error))


@cache
def say_lost(reason: str) -> None:
    """Warns once of each reason, until `say_lost.cache_clear()`."""
    warnings.warn(f"logs are lost ({reason}): the training goes on without them", stacklevel=2)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file of a run folder, in the place of an older one, which stays where this one cannot be written.

    Raises:
        OSError: the disk refuses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
