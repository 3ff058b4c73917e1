"""`EverySampleOnce`: an evaluation on several processes without the samples that are there only to fill up."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler


class EverySampleOnce:
    """Takes the repeated samples out of the batches of one pass.

    A `DistributedSampler`, as Lightning gives one to every loader, repeats samples until all processes have equally
    many: counted twice, they falsify every mean. They come last on their process.

    Args:
        loader: the data loader of the pass, or None for one without repeats.
    """

    def __init__(self, loader: Any) -> None:
        batch_sampler = getattr(loader, "batch_sampler", None)
        sampler = batch_sampler.sampler if type(batch_sampler) is BatchSampler else None
        self._num_left = sys.maxsize
        if isinstance(sampler, DistributedSampler):
            self._num_left = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]

    def take(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of the next batch that are no repeats, possibly none."""
        num_taken = max(0, min(len(x), self._num_left))
        self._num_left -= len(x)
        return x[:num_taken], y[:num_taken]
