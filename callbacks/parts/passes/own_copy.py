"""`own_copy`: a copy of a dataset, so that what is drawn from it moves no state of the dataset itself."""

from __future__ import annotations

import io
import pickle
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Original = TypeVar("Original")

_LARGE = 1 << 16
"""Bytes, beyond which a tensor or an array is taken for data, and not for a counter or a random state."""


def own_copy(original: Original) -> Original:
    """A copy with random states, counters and caches of its own, made as for a worker process.

    Shared with the original is what never changes, such as bytes and functions, and large tensors and arrays, since
    memory may hold them but once.

    Raises:
        Exception: something in it cannot be copied, such as an open file; whatever its class raises.
    """
    kept: list[Any] = []
    places: dict[int, int] = {}  # one copy for each, however often it occurs

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            mine: Any
            if isinstance(value, bytes | type | FunctionType | ModuleType):
                mine = value
            elif isinstance(value, Tensor):
                mine = value if value.nbytes > _LARGE else value.detach().clone()
            elif isinstance(value, np.ndarray) and value.dtype != object:
                mine = value if value.nbytes > _LARGE else value.copy()
            else:
                return None
            if id(value) not in places:
                places[id(value)] = len(kept)
                kept.extend((mine, value))  # which must live on, for its id to be its own
            return places[id(value)]

    class Reader(pickle.Unpickler):
        def persistent_load(self, place: int) -> Any:
            return kept[place]

    stream = io.BytesIO()
    Writer(stream).dump(original)
    stream.seek(0)
    return Reader(stream).load()
