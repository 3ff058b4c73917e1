"""`own_copy`: a copy of a dataset, so that what is drawn from it moves no state of the dataset itself."""

from __future__ import annotations

import io
import pickle
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

Original = TypeVar("Original")

_LARGE = 1 << 16
"""Bytes, beyond which a tensor or an array is taken for data, and not for a counter or a random state."""

_MANY = 1 << 26
"""Bytes of tensors and arrays in all, after which no more of them are copied: so many are a cache."""


def own_copy(original: Original) -> Original:
    """A copy with random states, counters and caches of its own, made as for a worker process.

    A function has its own too, in what it closes over. Shared with the original are bytes and the trainer, what
    classes, modules and defaults of functions hold, sparse tensors, and tensors and arrays of more than 64 KB, or of
    any size once 64 MB are copied, since memory may hold them but once. All else is there twice while the copy lives,
    and its pickle with it, such as the paths of a long list.

    Raises:
        Exception: something in it cannot be copied, such as an open file; whatever its class raises.
    """
    stream = io.BytesIO()
    writer = _Writer(stream)
    writer.dump(original)
    stream.seek(0)
    return _Reader(stream, writer.kept).load()


class _Writer(pickle.Pickler):
    """Writes what is not pickled, copies of tensors and what is shared, as their places in `kept`."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.kept: list[Any] = []
        self._places: dict[int, int] = {}  # one copy for each, however often it occurs
        self._num_bytes = 0

    def persistent_id(self, value: Any) -> int | None:
        mine = value
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and not value.dtype.hasobject):
            if id(value) not in self._places:
                mine = self._copied(value)
        elif isinstance(value, FunctionType):
            if value.__closure__:
                return None
        elif not isinstance(value, bytes | type | ModuleType | pl.Trainer | _Anew):
            return None
        if id(value) not in self._places:
            self._places[id(value)] = len(self.kept)
            self.kept.extend((mine, value))  # which must live on, for its id to be its own
        return self._places[id(value)]

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return _Anew(value), (value.__closure__,)
        if isinstance(value, CellType):
            try:
                return CellType, (value.cell_contents,)
            except ValueError:  # empty as yet
                return CellType, ()
        return NotImplemented

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.layout != torch.strided:
            return value  # which does not tell its size
        if value.nbytes > _LARGE or self._num_bytes + value.nbytes > _MANY:
            return value
        self._num_bytes += value.nbytes
        return value.detach().clone() if isinstance(value, Tensor) else value.copy()


class _Reader(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(stream)
        self._kept = kept

    def persistent_load(self, place: int) -> Any:
        return self._kept[place]


class _Anew:
    """Makes a function again, over other cells."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def __call__(self, cells: tuple[CellType, ...]) -> FunctionType:
        of = self._function
        made = FunctionType(of.__code__, of.__globals__, of.__name__, of.__defaults__, cells)
        made.__kwdefaults__ = of.__kwdefaults__
        made.__dict__.update(of.__dict__)
        return made
