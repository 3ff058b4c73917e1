"""`PixelCache`: decoded images of one size as bytes in a file, read through a memory map.

A cache is one file that appears when all of it is written: what builds it writes beside it and renames, which takes
the place of a damaged one in the same moment. Two processes that build the same one do no harm, and of one that was
interrupted nothing is found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from touchstone.runs.whole_files import place_beside, to_disk

Decoded = tuple[np.ndarray, int]
"""One image, uint8 `(C, H, W)`, and its class."""

_INT64 = np.dtype("<i8")


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
    """The cache of some images: their pixels, then their classes, then a description in JSON, then its length.

    Args:
        path: where; its name should tell the content, as a hash does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Tensor, Tensor, list[str]] | None:
        """The images, a memory map, uint8 `(N, C, H, W)`; their classes; why others were skipped.

        None where there is no cache, or one that has lost bytes since it was written.
        """
        try:
            with self.path.open("rb") as file:
                content = np.memmap(file, np.uint8, "c")  # copy on write: torch would warn of what cannot be written
            length = int(content[-_INT64.itemsize :].view(_INT64)[0])
            described = json.loads(content[-_INT64.itemsize - length : -_INT64.itemsize].tobytes())
            shape = tuple(described["shape"])
            num_pixels, num_bytes = int(np.prod(shape)), shape[0] * _INT64.itemsize
            if len(content) != num_pixels + num_bytes + length + _INT64.itemsize:
                return None
            y = np.frombuffer(content[num_pixels : num_pixels + num_bytes].tobytes(), _INT64).astype(np.int64)
            return torch.from_numpy(content[:num_pixels].reshape(shape)), torch.from_numpy(y), described["skipped"]
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return None

    def write(self, built: Built) -> None:
        """Writes all of the images, or nothing.

        Raises:
            ValueError: there are none.
            OSError: the disk is full, or cannot be written.
        """
        with ExitStack() as stack:
            with self._naming_the_folder():
                building = stack.enter_context(place_beside(self.path, is_shared=True))
                file = building.open("xb", buffering=0)
            with file:
                labels: list[int] = []
                for image, label in built.images:
                    with self._naming_the_folder():
                        _write_all(file, image)
                    labels.append(label)
                if not labels:
                    raise ValueError("there are no images")
                described = json.dumps({"shape": [len(labels), *image.shape], "skipped": list(built.skipped)}).encode()
                with self._naming_the_folder():
                    _write_all(file, np.array(labels, _INT64).view(np.uint8))
                    _write_all(file, np.frombuffer(described, np.uint8))
                    _write_all(file, np.array([len(described)], _INT64).view(np.uint8))
                    to_disk(file)
            with self._naming_the_folder():
                self._put_in_place(building)

    def _put_in_place(self, building: Path) -> None:
        try:
            os.replace(building, self.path)
        except OSError:
            if self.read() is None:  # not one that another process has open, where systems forbid to replace it
                raise

    @contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"decoded images cannot be kept in {self.path.parent}: {error.strerror or error}"
            raise OSError(error.errno, message) from error


def _write_all(file: FileIO, image: np.ndarray) -> None:
    """Without a buffer, so that a disk that is full says so at once; it may take a part only."""
    left = memoryview(np.ascontiguousarray(image).reshape(-1).data)
    while left:
        left = left[file.write(left) :]
