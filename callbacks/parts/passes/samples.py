"""`SampleStream`: the samples of one validation or test pass, numbered the same way in any number of processes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, IterableDataset, SequentialSampler

from touchstone.attacks.core.checks import check_batch

from .batch_keys import images_and_labels


@dataclass(frozen=True)
class Samples:
    """Some samples of a pass.

    Attributes:
        x: images, float `(N, ...)`, or texts, whole numbers `(N, T)`.
        y: the true classes, int64 `(N,)`; of texts for a language model the tokens that follow, `(N, T)`.
        ids: by which they are known, int64 `(N,)`; see `SampleStream`.
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

    An id is the sample's position in the undistributed dataset where the loader's order says so, else its place in
    the pass, counted over all processes in turn.

    Args:
        trainer: says how many processes there are.
        loader: the data loader of the pass.
        max_samples: only samples with a smaller id are passed on; None for all.
        batch_keys: the keys of images and labels in batches that are dicts or named tuples, or their places in others.

    Attributes:
        caveat: what is to be known of ids that are no positions in the dataset, in words; None where they are.
        leaves_some_out: whether there are more than `max_samples`, or may be.
    """

    def __init__(
        self, trainer: pl.Trainer, loader: Any, max_samples: int | None, batch_keys: Sequence[str | int] | None
    ) -> None:
        self._batch_keys = batch_keys
        sampler = _sampler(loader)
        self.caveat = _caveat(trainer, sampler)
        self.leaves_some_out = max_samples is not None and max_samples < _size(loader)
        limits = [] if max_samples is None else [max_samples]
        if isinstance(sampler, DistributedSampler):
            self._stride, self._next_id = sampler.num_replicas, sampler.rank
            # It repeats samples until the processes have equally many: those ids lie beyond the end.
            limits.append(len(sampler.dataset))  # type: ignore[arg-type]
        else:
            self._stride, self._next_id = trainer.world_size, trainer.global_rank
        self._end = min(limits, default=sys.maxsize)

    def take(self, batch: Any, device: torch.device | None = None) -> Samples | None:
        """The samples of the next batch that are to be measured, or None.

        On the device of the model, where one is given: a validation step may have put into its batch what it has
        brought to the CPU, to draw or to keep it.
        """
        x, y = images_and_labels(batch, self._batch_keys)
        if device is not None:
            x, y = (part.to(device) if isinstance(part, Tensor) and part.is_cpu else part for part in (x, y))
        check_batch(x, y)
        first, self._next_id = self._next_id, self._next_id + self._stride * len(x)
        num_taken = len(range(first, min(self._next_id, self._end), self._stride))
        ids = first + self._stride * torch.arange(num_taken, device=x.device)
        return Samples(x[:num_taken], y[:num_taken].to(torch.int64), ids) if num_taken else None


def _size(loader: Any) -> float:
    """How many samples a loader has, infinitely many where that is not known."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return math.inf


def _sampler(loader: Any) -> Any:
    """What gives the order of a loader's samples: a sampler, a batch sampler of the user's own, or nothing known."""
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return None
    batch_sampler, sampler = getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)
    if batch_sampler is None:  # whatever is sampled then are batches
        return None if isinstance(sampler, DistributedSampler) else sampler
    return batch_sampler.sampler if type(batch_sampler) is BatchSampler else batch_sampler


def _caveat(trainer: pl.Trainer, sampler: Any) -> str | None:
    """Why the place in the pass is not the position in the undistributed dataset, or None where it is."""
    if isinstance(sampler, DistributedSampler):
        in_order = not sampler.shuffle and type(sampler) in (DistributedSampler, UnrepeatedDistributedSampler)
    elif trainer.world_size > 1:
        return (
            "no DistributedSampler spreads the samples over the processes, so that those of different processes count "
            "as different samples, numbered in turn: their random starts are not those of a run in one process"
        )
    else:  # an iterable dataset has an order of its own, the same at every pass for all that is known
        is_sequential = sampler is None or isinstance(sampler, SequentialSampler)
        in_order = is_sequential or getattr(sampler, "in_order", False)  # as one of the user's own may say
    if in_order:
        return None
    return (
        f"samples are numbered by their place in the pass, since {type(sampler).__name__} may take them in another "
        "order each time: random starts, and the samples that `max_samples` takes, differ between validations; "
        "turn shuffling off in the data loader"
    )
