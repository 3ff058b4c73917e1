"""`whole_batches`: a `DataLoader` that takes the rows of a batch out of a tensor at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]


class Rows(Dataset[Batch]):
    """Some rows of images and classes.

    Args:
        x: `(N, ...)`, possibly a memory map.
        y: `(N,)`.
        rows: which, int64; None for all.
    """

    def __init__(self, x: Tensor, y: Tensor, rows: Tensor | None = None) -> None:
        self.x, self.y = x, y
        self.rows = torch.arange(len(y)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        row = self.rows[index]
        return self.x[row], self.y[row]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: torch's loader asks for it where it is defined."""
        rows = self.rows[torch.as_tensor(indices)]
        return self.x.index_select(0, rows), self.y[rows]


def whole_batches(rows: Rows, **options: Any) -> DataLoader:
    """A loader with the samplers that Lightning and the callbacks know, and without a step per sample."""
    return DataLoader(rows, collate_fn=_as_it_is, **options)


def _as_it_is(batch: Any) -> Any:
    return batch
