"""`SampleStream`: the samples of one validation or test pass, numbered as the undistributed dataset numbers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


@dataclass(frozen=True)
class Samples:
    """Some samples of a pass.

    Attributes:
        x: images, float `(N, ...)`.
        y: the true classes, int64 `(N,)`.
        ids: positions in the undistributed dataset, int64 `(N,)`.
    """

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor | slice) -> Samples:
        """Some of the rows."""
        return Samples(self.x[rows], self.y[rows], self.ids[rows])

    @staticmethod
    def join(parts: Sequence[Samples]) -> Samples:
        """One after another, at least one."""
        return Samples(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y", "ids")))


class SampleStream:
    """Turns the batches of one pass over one data loader into numbered samples.

    Args:
        trainer: says how the samples are spread over processes.
        loader: the data loader of the pass.
        max_samples: only samples with a smaller id are passed on, the same ones for any number of processes.
        batch_keys: the keys of images and labels in batches that are dicts.
    """

    def __init__(
        self, trainer: pl.Trainer, loader: Any, max_samples: int | None, batch_keys: Sequence[str] | None
    ) -> None:
        self._max_samples, self._batch_keys = max_samples, batch_keys
        samplers = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
        spread = next((sampler for sampler in samplers if isinstance(sampler, DistributedSampler)), None)
        self._stride = 1 if spread is None else spread.num_replicas
        self._next_id = 0 if spread is None else spread.rank
        # A distributed sampler repeats samples until the processes have equally many: those ids lie beyond the end.
        self._end = None if spread is None else len(spread.dataset)  # type: ignore[arg-type]

    def take(self, batch: Any) -> Samples | None:
        """The samples of the next batch that are to be measured, or None."""
        x, y = images_and_labels(batch, self._batch_keys)
        ids = self._next_id + self._stride * torch.arange(len(x), device=x.device)
        self._next_id += self._stride * len(x)
        limits = [limit for limit in (self._end, self._max_samples) if limit is not None]
        samples = Samples(x, y, ids)
        if limits and len(ids) and int(ids[-1]) >= min(limits):
            samples = samples.take(ids < min(limits))
        return samples if len(samples) else None


def images_and_labels(batch: Any, keys: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """The images and labels in a batch: a tuple or list of both, or a dict with the given keys.

    Raises:
        ValueError: the batch is something else, or lacks a key.
    """
    if isinstance(batch, Mapping):
        if keys is None:
            raise ValueError(
                f"the batch is a dict with the keys {list(batch)}: say which are the images and the labels, "
                "`batch_keys=(images, labels)`"
            )
        missing = [key for key in keys if key not in batch]
        if missing:
            raise ValueError(f"batch_keys: the batch has no {missing[0]!r}, its keys are {list(batch)}")
        return batch[keys[0]], batch[keys[1]]
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    raise ValueError(f"the batch must be (images, labels) or a dict of them, got {type(batch).__name__}")
