"""`in_own_order`: a data loader whose batches depend on the seed and epoch alone; `samples_in`: what is in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader

from touchstone.own_class import put_before

from .enduring_workers import Enduring
from .random_state import RandomStream


@dataclass(frozen=True)
class Position:
    """Where in a training an iteration over the data begins.

    Attributes:
        seed: of the run, >= 0.
        epoch: counted from 0.
        rank: of the process.
        num_taken: batches of this epoch that have been trained on.
    """

    seed: int
    epoch: int
    rank: int
    num_taken: int


def in_own_order(loader: DataLoader, position: Callable[[], Position]) -> DataLoader:
    """Lets a data loader shuffle and augment by a random stream of its own in every epoch, and begin in its middle.

    Batches that were taken already are read and dropped, so that samplers, datasets and worker processes stand where
    they stood. (Workers that persist from epoch to epoch do not: what they draw goes on.) Generators of the loader's
    own are seeded anew in every epoch.

    Args:
        loader: changed in place; it stays an instance of its class, also where Lightning makes another one like it.
        position: says where an iteration begins; asked at each.
    """
    kind = type(loader)
    while issubclass(kind, _InOwnOrder):  # of an earlier fit
        kind = kind.__bases__[1]
    put_before(loader, _InOwnOrder, kind, position=staticmethod(position))
    return loader


def samples_in(loader: Any, batch: int) -> list[int] | None:
    """The positions in the dataset of the samples in a batch that was drawn a short while ago.

    Args:
        loader: of the training.
        batch: its number in the epoch, counted from 0; batches that an earlier run has trained on count.

    Returns:
        One position a row; None where they are not known: the loader is not in its own order, or its dataset is a
        stream, or counts batches.
    """
    if not isinstance(loader, _InOwnOrder):
        return None
    drawn = dict(vars(loader).get("_drawn", ())).get(batch // getattr(loader, "num_repeats", 1))
    try:
        return [int(position) for position in drawn]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return None


class _InOwnOrder(Enduring):
    """What is put before the class of a data loader. That it has a state tells Lightning that it can go on."""

    position: Callable[[], Position]

    def __iter__(self) -> Any:
        drawn_from = [getattr(source, "generator", None) for source in (self, self.sampler, self.batch_sampler)]
        own = [generator for generator in drawn_from if isinstance(generator, Generator)]
        return _Batches(super().__iter__, self.position(), own)

    @property
    def _index_sampler(self) -> Any:
        num_ahead = (self.prefetch_factor or 0) * self.num_workers  # drawn, and not trained on yet
        drawn = vars(self).setdefault("_drawn", deque(maxlen=num_ahead + 4))
        return _Noted(super()._index_sampler, drawn)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: `position` knows."""


class _Batches:
    """The batches of one epoch from a position on, and the generators, if any, that the loader draws from itself."""

    def __init__(self, begin: Callable[[], Iterator[Any]], position: Position, own: Sequence[Generator]) -> None:
        with RandomStream(position.seed, position.epoch).in_use():  # the same on all processes, which share an order
            for generator in own:
                generator.manual_seed(int(torch.randint(2**62, ())))
        self._stream = RandomStream(position.seed, position.epoch, position.rank)
        with self._stream.in_use():
            self._batches = iter(begin())
        self._num_to_drop = position.num_taken

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        with self._stream.in_use():
            while self._num_to_drop:
                next(self._batches)
                self._num_to_drop -= 1
            return next(self._batches)


class _Noted:
    """A sampler of batches that notes the last of them by their numbers."""

    def __init__(self, sampler: Any, drawn: deque[tuple[int, Any]]) -> None:
        self._sampler, self._drawn = sampler, drawn

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        # At once, and not at the first batch: what the sampler draws here must not come after what the loader draws.
        return self._noting(iter(self._sampler))

    def _noting(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._drawn.clear()
        for number, batch in enumerate(batches):
            self._drawn.append((number, batch))
            yield batch
