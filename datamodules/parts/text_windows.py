"""`Windows` of a text, and the orders in which they are read: `Anywhere`, or as `Streams`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler, Sampler


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a text and the same one token further on.

    Args:
        ids: token ids `(tokens,)`, possibly memory-mapped.
        context: tokens of a window.
        every: how many tokens lie between the beginnings of neighbouring windows; what is left at the end is dropped.
    """

    def __init__(self, ids: np.ndarray, context: int, every: int) -> None:
        self.ids, self.context, self.every = ids, context, every

    def __len__(self) -> int:
        return (len(self.ids) - self.context - 1) // self.every + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows, got {index}")
        start = index * self.every
        ids = torch.from_numpy(self.ids[start : start + self.context + 1].astype(np.int64))
        return ids[:-1], ids[1:]


class Anywhere(Sampler[int]):
    """Windows drawn with replacement.

    No `RandomSampler`: in several processes, Lightning puts one that goes through all windows in the place of such.
    """

    def __init__(self, windows: Windows, num_samples: int) -> None:
        self._drawn = RandomSampler(windows, replacement=True, num_samples=num_samples)

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[int]:
        return iter(self._drawn)


class Streams:
    """Batches of windows whose row i continues row i of the batch before.

    Rows are equally long, and what is left behind the last of them is dropped. Where one batch more, of fewer rows,
    drops less, it is taken: never more than one window of `batch_size + 1` is dropped.

    Args:
        num_windows: how many there are, in the order of the text.
        batch_size: the most rows; no more than there are windows.
    """

    in_order = True  # the same one in every pass, which callbacks that number samples ask

    def __init__(self, num_windows: int, batch_size: int) -> None:
        most_rows, num_batches = min(batch_size, num_windows), -(-num_windows // batch_size)
        shapes = (most_rows, num_windows // most_rows), (num_windows // num_batches, num_batches)
        self.num_rows, self.num_batches = max(shapes, key=math.prod)  # the first where both read as much

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.num_batches):
            yield [row * self.num_batches + batch for row in range(self.num_rows)]
