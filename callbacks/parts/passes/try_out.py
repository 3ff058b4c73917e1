"""`TryOut`: when a probe is tried out before a training, and on what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks.core.checks import check_batch

from .batch_keys import images_and_labels
from .in_words import named
from .samples import Samples

if TYPE_CHECKING:
    from ...probe import Probe

ModelAndSamples = tuple[nn.Module, Samples]


class TryOut:
    """Tries a probe out once in a fit: what is wrong with it is better said now than after the first epochs.

    At the sanity check, on the first samples of each data loader: by measuring them (`Probe.tried_by_measuring`), or
    else by `Probe.try_out`. Where no process had any of them, as in a fit that goes on inside an epoch, before the
    first step, on what stands in for them: `Probe.stand_in`. And then after that step once more, on the same:
    `Probe.try_output`.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.begin()

    def begin(self) -> None:
        """A fit begins, or something else that has no first step."""
        self._is_over = False
        self._tried: ModelAndSamples | None = None  # before the step

    def at_sanity_check(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        """Takes the first samples of a data loader."""
        self._is_over = True
        if self._probe.tried_by_measuring:
            self._probe.see(model, samples, loader_index)
            self._probe.forget()
        else:
            self._probe.try_out(model, samples)

    def end_sanity_check(self, trainer: pl.Trainer) -> None:
        """A process may have had no samples, and yet must go on as the others do. A collective."""
        self._is_over = trainer.strategy.reduce_boolean_decision(self._is_over, all=False)

    def before_step(self, module: nn.Module, batch: Any) -> None:
        """Takes a batch that is about to be trained on."""
        if not self._is_over and self._probe.stand_in is not None and self._probe.takes_part():
            self._tried = self._probe.stand_in.try_out(self._probe, module, batch)
        self._is_over = True

    def after_step(self) -> None:
        """The output is not looked at before: a net may learn its scales from its first step."""
        if self._tried is not None:
            with named(type(self._probe).__name__):
                self._probe.try_output(*self._tried)
            self._tried = None


class StandIn(Protocol):
    """What is made of a training batch to stand in for samples of a validation."""

    def try_out(self, probe: Probe, module: nn.Module, batch: Any) -> ModelAndSamples | None:
        """Tries the probe out on it.

        Returns:
            The model and the samples that it was tried on; None where the batch is only for training, or unfit.
        """
        ...


class GreyPicture(StandIn):
    """One picture of the shape of those in the batch, for `Probe.try_out`: what goes wrong is an error.

    Its pixels are not taken from the batch, since augmentations may have moved them out of [0, 1].
    """

    def try_out(self, probe: Probe, module: nn.Module, batch: Any) -> ModelAndSamples | None:
        try:
            x, _ = images_and_labels(batch, probe.batch_keys)
        except ValueError:
            return None
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or not len(x):
            return None
        nothing = torch.zeros(1, dtype=torch.int64, device=x.device)
        model, grey = probe.of_pixels(module, x.device), Samples(torch.full_like(x[:1], 0.5), nothing, nothing)
        probe.try_out(model, grey)
        return model, grey


class TrainingSamples(StandIn):
    """The samples of the batch, for `Probe.try_input`: what goes wrong is a warning, as a validation may differ."""

    def try_out(self, probe: Probe, module: nn.Module, batch: Any) -> ModelAndSamples | None:
        try:
            x, y = images_and_labels(batch, probe.batch_keys)
            check_batch(x, y)
        except ValueError:
            return None
        try:
            model, samples = probe.as_measured(module, Samples(x, y, torch.arange(len(y), device=y.device)))
            probe.try_input(samples)
        except ValueError as error:
            name = type(probe).__name__
            rank_zero_warn(
                f"{name} could not attack the samples of a training batch, and validation samples like these will fail "
                f"in the same way: {error}"
            )
            return None
        return model, samples
