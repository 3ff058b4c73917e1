"""`RepeatedBatches`: training data whose batches come several times in a row."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from touchstone.own_class import put_before


class RepeatedBatches(pl.LightningModule):
    """Where a Trainer's training data come from, and what they are then.

    A module, since Lightning asks a method of one for them each time, as do others who look after the data
    (`ExactResume`).

    Args:
        trainer: one that is setting up a fit; its source of training data is asked whenever it wants data.
        num_repeats: how often each batch comes, >= 1.
    """

    def __init__(self, trainer: pl.Trainer, num_repeats: int) -> None:
        super().__init__()
        source = trainer.fit_loop._data_source
        self.trainer, self.num_repeats = trainer, num_repeats
        self._source = _DataLoaderSource(source.instance, source.name)

    def train_dataloader(self) -> Any:
        """Copies of the loaders of the source, each of whose batches comes `num_repeats` times.

        Raises:
            ValueError: the data come from something else than a `DataLoader`.
        """
        loaders = self._source.dataloader()
        combined = copy.copy(loaders) if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)
        combined.flattened = [self._repeating(loader) for loader in combined.flattened]
        return combined if isinstance(loaders, CombinedLoader) else combined.iterables

    def _repeating(self, loader: Any) -> DataLoader:
        if not isinstance(loader, DataLoader):
            raise ValueError(f"batches are repeated of a DataLoader, got {type(loader).__name__}")
        repeating = copy.copy(loader)  # another run may be given the loader as it was
        put_before(repeating, _Repeating, num_repeats=self.num_repeats)
        return repeating


class _Repeating(DataLoader):
    """What is put before the class of a data loader."""

    num_repeats: int

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return (batch for batch in super().__iter__() for _ in range(self.num_repeats))

    def __len__(self) -> int:
        return self.num_repeats * super().__len__()
