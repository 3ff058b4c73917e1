"""`tree_files`: the files of a folder, or of a tar archive as it lies, in one order and with one hash."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

MAX_BYTES = 1 << 29  # of a file in an archive; photographs have up to 50 MB
TreeFile = tuple[PurePosixPath, bytes]


def tree_files(root: Path, inside: str = "") -> Iterator[TreeFile]:
    """Every file with its path below `root`, by path in a folder, as they are stored in an archive.

    Args:
        root: a folder, or a tar archive of one, compressed or not.
        inside: only files whose path begins with this folder; empty for all.

    Raises:
        ValueError: the archive is damaged, or a file in it is larger than `MAX_BYTES`.
    """
    if root.is_file():
        yield from _archived(root, inside)
        return
    found = [Path(folder, name) for folder, _, names in os.walk(root / inside, followlinks=True) for name in names]
    for path in sorted(found):
        yield PurePosixPath(path.relative_to(root).as_posix()), path.read_bytes()


def tree_folders(root: Path) -> set[PurePosixPath]:
    """The folders at the top and those directly inside them, hidden ones left out."""
    if not root.is_file():
        found = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
        paths = {PurePosixPath(path.relative_to(root).as_posix()) for path in found}
    else:
        paths = set()
        with _reading(root) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                parts = path.parts if member.isdir() else path.parts[:-1]
                paths |= {PurePosixPath(*parts[:depth]) for depth in (1, 2) if len(parts) >= depth}
    return {path for path in paths if not any(part.startswith(".") for part in path.parts)}


def tree_hash(root: Path, inside: str = "") -> str:
    """A hash of the content: of names and bytes of a folder's files, wherever it lies, or of an archive's bytes."""
    digest = hashlib.blake2b(inside.encode(), digest_size=16)
    if root.is_file():
        with root.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()
    for path, content in tree_files(root, inside):
        name = str(path).encode()
        digest.update(f"{len(name)} {len(content)} ".encode())
        digest.update(name)
        digest.update(content)
    return digest.hexdigest()


def _archived(root: Path, inside: str) -> Iterator[TreeFile]:
    wanted = PurePosixPath(inside).parts
    with _reading(root) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isfile() and path.parts[: len(wanted)] == wanted:
                if member.size > MAX_BYTES:
                    raise ValueError(f"{root}: {member.name!r} has {member.size:,} bytes: a bomb?")
                file = archive.extractfile(member)
                assert file is not None
                yield path, file.read()


@contextmanager
def _reading(root: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(root) as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{root} is no tar archive, or a damaged one: {error}") from error
