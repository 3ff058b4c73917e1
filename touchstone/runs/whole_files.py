"""Files that are there whole or not at all: written beside their place, and put into it in one step."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

_HOUR, _DAY = 3600.0, 86_400.0  # seconds
_LONGEST = 255  # bytes of a name on most disks
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)


@contextmanager
def replacing(path: Path, *, is_shared: bool = False, dead_after: float = _HOUR) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends; no trace where it fails. Options of `place_beside`.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    with place_beside(path, is_shared=is_shared, dead_after=dead_after) as part:
        try:
            with part.open("xb") as file:
                yield file
                to_disk(file)
            os.replace(part, path)
        except OSError as error:
            if error.filename in (None, str(part)):
                error.filename, error.filename2 = str(path), None
            raise
    _folder_to_disk(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, in the place of an older one, which stays where this one cannot be written.

    Raises:
        OSError: the disk refuses it; the error names the file.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Writes files that belong together: the older ones stay, all of them, until the last new one is on the disk.

    Raises:
        OSError: the disk refuses one; the error names the file.
    """
    parts: dict[Path, Path] = {}
    with ExitStack() as stack:
        try:
            for path, content in contents.items():
                parts[path] = stack.enter_context(place_beside(path))
                with parts[path].open("xb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                    to_disk(file)
            for path, part in parts.items():
                os.replace(part, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    for folder in {path.parent for path in contents}:
        _folder_to_disk(folder)


@contextmanager
def place_beside(path: Path, *, is_shared: bool = False, dead_after: float = _HOUR) -> Iterator[Path]:
    """Where to write the file or the folder that is then moved to `path`; what still lies there at the end goes.

    What processes that were killed have left there is taken away.

    Args:
        path: where it will be; the folder around it is made.
        is_shared: whether the folder holds nothing but such files: then what nothing was written to for a day is of a
            killed process, whatever it is to become.
        dead_after: seconds without a write after which what is to become `path` is of a killed process; with 0 at once,
            where no other one can be writing it.

    Raises:
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _take_away_the_dead(path, is_shared, dead_after)
    part = path.with_name(f".{_cut(path.name)}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
    finally:
        _take_away(part)


def to_disk(file: IO[bytes]) -> None:
    """Waits until what was written is on the disk: a file that is moved before may be empty after a loss of power."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # these say that this disk cannot be waited for
            raise


def _folder_to_disk(path: Path) -> None:
    with suppress(OSError):  # some systems have no folders that can be synced
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _take_away_the_dead(path: Path, is_shared: bool, dead_after: float) -> None:
    for part in path.parent.glob(".*.part"):
        named = _PART.fullmatch(part.name)
        if named is None:
            continue
        if not is_shared and named[1] != _cut(path.name):
            continue
        allowed = _DAY if is_shared else dead_after
        with suppress(OSError):
            idle = time.time() - max(file.stat().st_mtime for file in (part, *part.rglob("*")))
            if not allowed or idle > allowed:
                _take_away(part)


def _cut(name: str) -> str:
    """As much of a name as leaves room for what is added to it."""
    return os.fsencode(name)[: _LONGEST - len("..01234567.part")].decode(errors="ignore")


def _take_away(part: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
