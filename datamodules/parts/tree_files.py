"""`tree_files`: the files of a folder, or of a tar archive as it lies, in one order and with one hash."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

MAX_BYTES = 1 << 29  # of a file in an archive; photographs have up to 50 MB
TreeFile = tuple[PurePosixPath, bytes | None]
"""A path and the bytes, None where they cannot be read."""


def files_below(root: Path) -> list[Path]:
    """The files in a folder and in those inside it, also where a link leads to a folder, by path.

    A link to a folder that it lies in is not followed: it would lead round for ever.
    """
    found: list[Path] = []
    for folder, inner, names in os.walk(root, followlinks=True):
        here = Path(folder)
        found += [here / name for name in names]
        around = {path.resolve() for path in (here, *here.parents) if path.is_relative_to(root)}
        inner[:] = [name for name in inner if not (here / name).is_symlink() or not _leads_back(here / name, around)]
    return sorted(found)


def _leads_back(link: Path, around: set[Path]) -> bool:
    """Whether it leads to a folder that it lies in, by links or without."""
    target = link.resolve()
    return any(folder.is_relative_to(target) for folder in around)


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
    for path in files_below(root / inside):
        yield PurePosixPath(path.relative_to(root).as_posix()), _content(path)


def tree_folders(root: Path) -> set[PurePosixPath]:
    """The folders at the top and those directly inside them; hidden ones and links to what they lie in left out."""
    if not root.is_file():
        found = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
        within = (path for path in found if not path.parent.resolve().is_relative_to(path.resolve()))
        paths = {PurePosixPath(path.relative_to(root).as_posix()) for path in within}
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
        digest.update(f"{len(name)} {len(content or b'')} ".encode())
        digest.update(name)
        digest.update(content or b"")
    return digest.hexdigest()


def _content(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes() if path.is_file() else None  # a pipe would be waited for
    return None


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
