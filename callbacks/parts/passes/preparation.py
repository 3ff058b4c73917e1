"""`Preparation`: lets the attacks of a suite learn from the training data, without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from touchstone.attacks import Attack, Cost, Report, frozen_eval
from touchstone.attacks.core.checks import check_batch
from touchstone.attacks.core.frozen_eval import seed_random_state
from touchstone.attacks.judge.preparing import coincide, prepare_attacks
from touchstone.attacks.judge.untouched import Untouched

from .batch_keys import images_and_labels
from .measuring import measuring
from .own_copy import own_copy
from .samples import Samples

AsMeasured = Callable[[nn.Module, Samples], tuple[nn.Module, Samples]]


class Preparation:
    """Prepares attacks that need samples: anew for each pass, since the model changes, and alike on all processes.

    The samples are the first of the training dataset, taken by their number from a copy of it (`own_copy`). No data
    loader is drawn from, and the global random states are left as they were.

    Attributes:
        attacks: the suite, ready where it has been prepared.
    """

    def __init__(
        self, suite: Mapping[str, Attack], num_samples: int, seed: int, batch_keys: tuple[str | int, ...] | None
    ) -> None:
        self._suite, self._num_samples, self._seed, self._batch_keys = dict(suite), num_samples, seed, batch_keys
        self._learning = [name for name, attack in suite.items() if attack.needs_samples]
        self._batch: Any = None
        self._x = torch.empty(0, 1)  # what has been learned from
        self._costs: dict[str, Cost] = {}
        self.attacks = dict(suite)

    def draw(self, trainer: pl.Trainer) -> None:
        """Takes the samples, once; what stands in the way of it is better said before training.

        Raises:
            ValueError: there is no training data that samples can be taken from.
        """
        if not self._learning or self._batch is not None:
            return
        who = f"attack {self._learning[0]!r} learns from the first samples of the training data"
        with frozen_eval(trainer.lightning_module):  # datasets may draw random numbers
            seed_random_state(self._seed, torch.device("cpu"))  # the loader may be made only now
            loader = _training_loader(trainer)
            if loader is None:
                raise ValueError(
                    f"{who}, and outside `fit` there is none: give the trainer a datamodule with a train_dataloader(), "
                    "or leave the attack out"
                )
            dataset: Any = getattr(loader, "dataset", None)
            by_number = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
            if isinstance(dataset, IterableDataset) or not by_number:
                kind = type(loader if dataset is None else dataset).__name__
                raise ValueError(
                    f"{who}, which must be a dataset that gives a sample by its number, got {kind}: drawing from it "
                    "would change the training; leave the attack out, or call its `prepare` yourself"
                )
            try:
                self._batch = self._drawn(*own_copy((dataset, loader.collate_fn)))
            except Exception as error:  # whatever a user's class raises
                rank_zero_warn(
                    f"{who}, and a copy of these cannot be made or read ({error}): if the {type(dataset).__name__} "
                    "counts what is drawn, or has a random state of its own, the training is another one for it"
                )
                self._batch = self._drawn(dataset, loader.collate_fn)

    def _drawn(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> Any:
        """The first samples, as one batch."""
        seed_random_state(self._seed, torch.device("cpu"))
        return collate([dataset[number] for number in range(min(self._num_samples, len(dataset)))])

    def prepare(self, trainer: pl.Trainer, module: pl.LightningModule, as_measured: AsMeasured) -> None:
        """Lets the attacks learn from the samples, for one pass."""
        if not self._learning:
            return
        self.draw(trainer)
        with frozen_eval(module):  # the user's hooks may draw random numbers
            seed_random_state(self._seed, module.device)
            x, y = images_and_labels(_on_device(trainer, self._batch), self._batch_keys)
        try:
            check_batch(x, y)
            model, samples = as_measured(module, Samples(x, y, torch.arange(len(y))))
        except ValueError as error:
            raise ValueError(f"attack {self._learning[0]!r} cannot learn from the training data: {error}") from error
        with measuring(model, samples) as (x, y), torch.autocast(x.device.type, enabled=False):
            untouched = Untouched(model)
            model(x[:1])
            untouched.ignore_changes()
            self._x = x.cpu()
            self.attacks, self._costs = prepare_attacks(
                self._suite, model, (x, y), seed=self._seed, untouched=untouched
            )

    def with_overlap(self, report: Report, x: Tensor) -> Report:
        """The report on some samples of the pass, with a warning where the attacks have learned from them."""
        if not self._learning or not bool(coincide(x, self._x).any()):
            return report
        sign = (
            f"{', '.join(self._learning)}: images of the training data that it has learned from are among those that "
            "are measured: an attack that knows a sample is stronger on it than on others"
        )
        return replace(report, observed=[*report.observed, sign])

    def with_cost(self, report: Report) -> Report:
        """The report of a whole pass, with what the attacks have cost while they learned."""
        cost = {name: spent + self._costs.get(name, Cost()) for name, spent in report.cost.items()}
        return replace(report, cost=cost)


def _training_loader(trainer: pl.Trainer) -> Any:
    """The data loader of the training, the first of several; None where there is none."""
    loaders, datamodule = trainer.train_dataloader, getattr(trainer, "datamodule", None)
    if loaders is None and datamodule is not None and is_overridden("train_dataloader", datamodule):
        datamodule.setup("fit")  # of another stage it may have no training data
        loaders = datamodule.train_dataloader()
    if loaders is None:
        return None
    return (loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)).flattened[0]


def _on_device(trainer: pl.Trainer, batch: Any) -> Any:
    """A batch as the validation's are when they are measured: by the hooks of module and datamodule."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch)
    return trainer.strategy.batch_to_device(batch)
