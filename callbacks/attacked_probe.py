"""`AttackedProbe`: the base of the probes that attack the samples of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import nn

from touchstone.attacks import Attack, evaluate
from touchstone.attacks.judge.halving import Halving
from touchstone.attacks.judge.running import check_names, check_seed
from touchstone.options import check_counts

from .parts.passes.before_training import check_forward, check_input, check_model, check_output, check_vocabulary
from .parts.passes.no_pass import is_to_measure
from .parts.passes.samples import Samples
from .parts.passes.try_out import TrainingSamples
from .probe import Probe


class AttackedProbe(Probe):
    """A probe that says before a training what would stand in the way of its attacks.

    Args:
        attacks: attacks by name, at least one.
        batch_size: samples attacked at a time, >= 1, whatever the loader's batch size.
        seed: seeds the random starts, together with each sample's position in the dataset.
        every_n_epochs, max_samples, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range.
    """

    depends_on_ids = True
    stand_in = TrainingSamples()

    def __init__(self, attacks: Mapping[str, Attack], *, batch_size: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        check_names(attacks)
        if not attacks:
            raise ValueError(f"{name}(attacks=...) must name at least one attack")
        check_counts(self, batch_size=batch_size)
        check_seed(name, seed)
        self.batch_size, self.seed = batch_size, int(seed)  # a report cannot hold one of numpy
        self._suite = dict(attacks)
        self._halving = Halving(batch_size)  # kept from pass to pass: what does not fit is tried once

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By now the data module has the vocabulary that it will have, that of a checkpoint where there is one."""
        if is_to_measure(trainer):
            check_vocabulary(self._suite, trainer)
            check_forward(pl_module, type(self).__name__)

    on_validation_start = on_test_start = on_fit_start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if is_to_measure(trainer):
            check_model(self._suite, pl_module)

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        self.try_input(samples)
        evaluate(model, samples.x, samples.y, {}, batch_size=self._halving)  # checks the labels and the logits
        self.try_output(model, samples)

    def try_input(self, samples: Samples) -> None:
        check_input(self._suite, samples.x)

    def try_output(self, model: nn.Module, samples: Samples) -> None:
        check_output(self._suite, model, samples)
