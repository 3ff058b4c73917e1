"""`PixelCache`: decoded images of one size as bytes in a file, read through a memory map.

A cache is a folder that appears when all of it is written: what builds it writes beside it and renames. Two processes
that build the same one do no harm, and of one that was interrupted nothing is found.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Decoded = tuple[np.ndarray, int]
"""One image, uint8 `(C, H, W)`, and its class."""


@dataclass(frozen=True)
class Built:
    """What building gives.

    Attributes:
        images: each with its class, all of one shape.
        skipped: reasons for those that were left out; filled as the images are taken.
    """

    images: Iterable[Decoded]
    skipped: Sequence[str]


class PixelCache:
    """The cache of some images.

    Args:
        folder: where; its name should tell the content, as a hash does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> tuple[Tensor, Tensor, list[str]] | None:
        """The images, a memory map, uint8 `(N, C, H, W)`; their classes; why others were skipped.

        None where there is no cache, or one that has lost bytes since it was written, which is taken away.
        """
        found = _read(self.folder)
        if found is None and self.folder.exists():
            self._take_away()
        return found

    def write(self, built: Built) -> None:
        """Writes all of the images, or nothing.

        Raises:
            ValueError: there are none.
            OSError: the disk is full, or cannot be written.
        """
        with self._naming_the_folder():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix="building-", dir=self.folder.parent))
        labels: list[int] = []
        try:
            with (building / "pixels.bin").open("wb", buffering=0) as file:
                for image, label in built.images:
                    with self._naming_the_folder():
                        _write_all(file, image)
                    labels.append(label)
                os.fsync(file.fileno())
            if not labels:
                raise ValueError("there are no images")
            described = {"shape": [len(labels), *image.shape], "skipped": list(built.skipped)}
            with self._naming_the_folder():
                np.save(building / "labels.npy", np.array(labels, np.int64))
                (building / "cache.json").write_text(json.dumps(described), encoding="utf-8")
                if self.read() is None:  # another process may have been faster
                    self._replace(building)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _take_away(self) -> None:
        """Takes away a cache that has lost bytes, but none that another process has put in its place meanwhile."""
        with suppress(OSError), tempfile.TemporaryDirectory(prefix="damaged-", dir=self.folder.parent) as elsewhere:
            aside = Path(elsewhere, "cache")
            os.replace(self.folder, aside)
            if _read(aside) is not None:
                os.replace(aside, self.folder)

    def _replace(self, building: Path) -> None:
        try:
            os.replace(building, self.folder)
        except OSError:
            if not (self.folder / "cache.json").is_file():  # not a process that was faster by a moment
                raise

    @contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"decoded images cannot be kept in {self.folder.parent}: {error.strerror or error}"
            raise OSError(error.errno, message) from error


def _read(folder: Path) -> tuple[Tensor, Tensor, list[str]] | None:
    """What a cache in a folder holds, None where it is not there, or not whole."""
    try:
        described = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
        shape = tuple(described["shape"])
        pixels = folder / "pixels.bin"
        y = np.load(folder / "labels.npy")
        if pixels.stat().st_size != int(np.prod(shape)):
            return None
        # Copy on write: torch would warn of an array that cannot be written.
        x = torch.from_numpy(np.memmap(pixels, np.uint8, "c", shape=shape))
        return x, torch.from_numpy(y), described["skipped"]
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write_all(file: FileIO, image: np.ndarray) -> None:
    """Without a buffer, so that a disk that is full says so at once; it may take a part only."""
    left = memoryview(np.ascontiguousarray(image).reshape(-1).data)
    while left:
        left = left[file.write(left) :]
