"""`NpzImages`: images and classes in files of NumPy."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from .source import Labelled, Source, Split

T = TypeVar("T")
MAX_BYTES = 1 << 30  # of an array that is far larger than its file; the training images of CIFAR-10 have 154 MB
MAX_RATIO = 100
KEYS = ("x_{split}", "y_{split}"), ("{split}_images", "{split}_labels"), ("{split}_x", "{split}_y"), ("x", "y")
"""The names under which images and classes of a split are looked for, in this order; the last ones in a file of its
own alone."""


class NpzImages(Source):
    """Images as bytes, uint8 `(N, H, W, C)`, `(N, C, H, W)` or `(N, H, W)`, and classes as integers, `(N,)`.

    Args:
        train: a `.npz` file with the arrays `x_train`, `y_train` (or `train_images`, `train_labels`), perhaps with
            those of `val` and `test` too, or with `x` and `y` alone; None where there is only a test.
        val: a file of the validation images, where they are in one of their own.
        test: a file of the test images, likewise.
        class_names: what the classes are called; None for numbers.

    Raises:
        ValueError: there is no such file, or none is given; when it is read: it is damaged, or of something else, or an
            array would have more than 1 GiB and more than 100 times the bytes of the file.
    """

    def __init__(
        self,
        train: str | None = None,
        *,
        val: str | None = None,
        test: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.files = {"train": train, "val": val, "test": test}
        for split, file in self.files.items():
            if file is not None and not Path(file).is_file():
                raise ValueError(f"NpzImages({split}={file!r}): there is no such file")
        if train is None and test is None:
            raise ValueError("NpzImages(train=..., test=...): give one at least")
        self.class_names = None if class_names is None else tuple(class_names)

    def has(self, split: Split) -> bool:
        return self._place(split) is not None

    def read(self, split: Split, cache_folder: Path) -> Labelled | None:
        place = self._place(split)
        if place is None:
            return None
        y = self._array(place[0], place[2], _labels)
        of_train = None if split == "train" else self._place("train")
        train = y if of_train is None else self._array(of_train[0], of_train[2], _labels)
        if unknown := sorted(set(y.tolist()) - set(train.tolist())):
            raise ValueError(f"NpzImages: {split} has the class {unknown[0]}, which train lacks")
        num_classes = int(train.max()) + 1
        counted = split if of_train is None else "train"
        if num_classes < 2 or (counted == "train" and len(np.unique(train)) < 2):  # a test alone may be of one class
            raise ValueError(f"NpzImages({counted}=...) must have two classes or more, got {num_classes - 1} alone")
        names = self.class_names or tuple(str(number) for number in range(num_classes))
        if len(names) < num_classes:
            raise ValueError(f"NpzImages(class_names=...) must name {num_classes} classes, got {len(names)}")
        x = self._array(place[0], place[1], _images)
        if len(x) != len(y):
            raise ValueError(f"NpzImages({split}={place[0]!r}): it has {len(x)} images and {len(y)} classes")
        return Labelled(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y), names)

    def train_shape(self) -> tuple[int, ...] | None:
        place = self._place("train")
        if place is None:
            return None
        shape, dtype = self._opened(place[0], lambda arrays: _header(arrays, place[1]))
        return _images(np.broadcast_to(np.zeros((), dtype), shape)).shape[1:]  # one value seen in every place

    def _place(self, split: Split) -> tuple[str, str, str] | None:
        """The file of a split, and the names of its images and classes there."""
        own, file = self.files[split], self.files[split] or self.files["train"]
        if file is None:
            return None
        names = [tuple(name.format(split=split) for name in pair) for pair in (KEYS if own else KEYS[:-1])]
        stored = self._opened(file, lambda arrays: list(arrays))
        found = next(((file, x, y) for x, y in names if x in stored and y in stored), None)
        if own and found is None:
            wanted = " or ".join(" and ".join(pair) for pair in names)
            raise ValueError(f"NpzImages({split}={file!r}) must hold {wanted}, got {', '.join(stored) or 'nothing'}")
        return found

    def _array(self, file: str, name: str, check: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        def take(arrays: NpzFile) -> np.ndarray:
            _refuse_bomb(arrays, name, max(MAX_BYTES, MAX_RATIO * Path(file).stat().st_size))
            return check(arrays[name])

        return self._opened(file, take)

    @staticmethod
    def _opened(file: str, take: Callable[[NpzFile], T]) -> T:
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return take(arrays)
        except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"NpzImages({file!r}): {error}") from error


def _refuse_bomb(arrays: NpzFile, name: str, most: int) -> None:
    """Refuses an array whose header announces more than so many bytes: NumPy takes that memory before it reads on."""
    shape, dtype = _header(arrays, name)
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise ValueError(f"{name} has {size:,} bytes, more than {most:,}: a bomb?")


def _header(arrays: NpzFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of an array, of which no more is read."""
    assert arrays.zip is not None
    member = name if name in arrays.zip.namelist() else f"{name}.npy"
    with arrays.zip.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):  # the others are for headers that are too long for it
            raise ValueError(f"{name} is no plain array")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def _images(x: np.ndarray) -> np.ndarray:
    """As `(N, C, H, W)`."""
    if x.dtype != np.uint8:
        raise ValueError(
            f"images must be bytes, uint8, got {x.dtype}; of [0, 1] make (255 * x).round().astype('uint8')"
        )
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    raise ValueError(f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, got {x.shape}")


def _labels(y: np.ndarray) -> np.ndarray:
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    is_integer = y.ndim == 1 and len(y) > 0 and np.issubdtype(y.dtype, np.integer)
    if not is_integer or y.min() < 0:
        given = y.min() if is_integer else f"{y.dtype} {y.shape}"
        raise ValueError(f"classes must be integers >= 0, one for each image, got {given}")
    return y.astype(np.int64)
