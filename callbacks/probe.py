"""`Probe`: the base of every measurement on validation and test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.options import check_count
from touchstone.runs.of_trainer import callbacks_of

from .parts.passes.averaged_weights import check_order
from .parts.passes.batch_keys import read_batch_keys
from .parts.passes.before_training import pass_through
from .parts.passes.closer_look import is_measured
from .parts.passes.figures import Figures
from .parts.passes.fresh_figures import check_rankings
from .parts.passes.in_words import explained, named
from .parts.passes.left_out import LeftOut
from .parts.passes.loaders import loader_suffix, running_loaders
from .parts.passes.measured import Measured
from .parts.passes.measuring import measuring
from .parts.passes.monitors import check_monitors
from .parts.passes.no_pass import is_to_measure, refuse_empty_pass, refuse_empty_training, say_who_measures_nothing
from .parts.passes.normalized import NormalizedBatches
from .parts.passes.samples import Samples, SampleStream
from .parts.passes.try_out import StandIn, TryOut
from .parts.pictures.drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Probe(pl.Callback):
    """Measures something on the samples of each validation and test pass, and changes nothing.

    For a measurement of your own write a subclass with one method, `measure`; for pictures, another one, `draw`.

    Args:
        every_n_epochs: during `fit`, measure at the validations of every n-th epoch, >= 1.
        max_samples: measure only the first samples of the dataset, >= 1; None for all.
        normalization: mean and standard deviation per channel, the second axis of a batch, or one of each for all, if
            the batches come normalized; then `measure` gets pixels in [0, 1] all the same, and a model that takes them.
        batch_keys: the keys of images and labels, if the batches are dicts or named tuples; of other tuples and lists
            their places, from 0, where these are not the first two.

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> class Confidence(Probe):
        ...     def measure(self, model, x, y):
        ...         return {"confidence": model(x).softmax(1).amax(1)}  # logged as val/confidence
    """

    depends_on_ids: ClassVar[bool] = False
    """Whether what is measured of a sample depends on its id, as random starts do."""

    stand_in: ClassVar[StandIn | None] = None
    """On what it is tried out in a fit without a sanity check; None where it is not."""

    tried_by_measuring: ClassVar[bool] = False
    """Whether the sanity check tries it by `see`, of which `forget` then drops every trace, and not by `try_out`.

    A subclass of such a one, whose own `see` leaves more behind, sets it to False."""

    measures_training: ClassVar[bool] = False
    """Whether it has figures of the training itself, too."""

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        batch_keys: tuple[str | int, str | int] | None = None,
    ) -> None:
        name = type(self).__name__
        check_count(f"{name}(every_n_epochs=...)", every_n_epochs)
        check_count(f"{name}(max_samples=...)", max_samples, none_means="all samples")
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self._normalized = NormalizedBatches(normalization, name)
        self.normalization, self.normalize = self._normalized.normalization, self._normalized.normalize
        self.batch_keys = read_batch_keys(batch_keys, f"{name}(batch_keys=...)")
        self._streams: dict[int, SampleStream] = {}
        self._measured, self._pictures_of_pass, self._logged_figures = Measured(name), Drawn(name), Figures(name)
        self._has_seen_samples = False
        self._left_out = LeftOut(name, self.batch_keys)
        self._try_out = TryOut(self)

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Measures a batch, in evaluation mode, with gradients on and the weights frozen.

        Args:
            model: pixels to logits `(N, C)`; for texts, token ids to logits `(N, C)` or `(N, T, V)`.
            x: pixels in [0, 1], float `(N, ...)`, or tokens, whole numbers `(N, T)`.
            y: the true classes, int64 `(N,)`; for a language model the tokens that follow, `(N, T)`.

        Returns:
            Values by name, one per sample, `(N,)`. Their mean over all samples is logged as `val/NAME` or `test/NAME`,
            which the module must not log itself.
        """
        raise TypeError(f"{type(self).__name__} must define measure(self, model, x, y)")

    def draw(self, model: nn.Module, x: Tensor, y: Tensor) -> Mapping[str, Figure]:
        """Draws the first batch of a pass; called as `measure` is, for each loader, on the first process alone.

        Returns:
            Figures by name, shown as the pictures `NAME/val` or `NAME/test` and kept as files, of two of one name the
            one of the later callback; those that `pyplot` has made are closed. Here there are none.
        """
        return {}

    # What a subclass that is more than a mean over samples overrides.

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        """Takes in the next samples of the pass."""
        with measuring(model, samples) as (x, y):
            measured = self.measure(model, x, y)
        self.keep(samples, measured, loader_index)

    def keep(self, samples: Samples, measured: Mapping[str, Tensor], loader_index: int) -> None:
        """Keeps what was measured of the next samples of the pass, one value per sample, `(N,)`, by name."""
        self._measured.keep(samples.ids, measured, loader_index)

    def as_measured(self, module: nn.Module, samples: Samples) -> tuple[nn.Module, Samples]:
        """The model that is measured, and its samples: before any normalization of the batches."""
        pixels = self._normalized.pixels(samples.x)
        return self.of_pixels(module, pixels.device), replace(samples, x=pixels)

    def of_pixels(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The model that is measured, for samples that never were normalized."""
        return self._normalized.of_pixels(module, device)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        """Logs what the pass has shown of a loader; called on every process, also on one without samples of it."""
        for name, value in self.means(loader_index).items():
            self.log_figure(trainer, module, f"{stage}/{name}", value, loader_index)

    def means(self, loader_index: int) -> dict[str, Tensor]:
        """The mean of what was kept by each name, over the samples of all processes; a collective that drops it."""
        return self._measured.means(self.gathered(loader_index))

    def gathered(self, loader_index: int) -> dict[str, Tensor]:
        """What was kept by each name, of all processes in the order of `_id`, on the CPU; a collective that drops it.

        Empty where no process had samples.
        """
        return self._measured.gathered(loader_index)

    def log_figure(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        tag: str,
        value: float | Tensor,
        loader_index: int,
        **options: Any,
    ) -> None:
        """Logs a figure of a whole pass, equal on all processes.

        Raises:
            ValueError: another callback has logged one under this tag, of which Lightning would log the mean, or the
                module has, which this one would replace.
        """
        beside = (probe._logged_figures for probe in callbacks_of(trainer, Probe))
        self._logged_figures.log(
            trainer, module, tag + loader_suffix(trainer, loader_index), value, beside=beside, **options
        )

    def last_figures(self, trainer: pl.Trainer) -> dict[str, float]:
        """Its figures of the last pass by tag; none where a training has gone on since, without measuring."""
        return self._logged_figures.last(trainer)

    def logs(self, tag: str) -> bool:
        """Whether a figure is one of its own, as far as is known: here, from the last measurement."""
        return tag in self._logged_figures.tags

    def tags(self) -> list[str]:
        """The tags of its figures at the validations of a fit, as far as they are known before the first."""
        return []

    def forget(self) -> None:
        """Drops what was taken in; called before each pass, since an interrupted one may have left something."""
        self._measured.forget()
        self._pictures_of_pass.forget()

    # What a subclass says before a training rather than after its first epochs; see `TryOut`.

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        """Looks at the first samples of a sanity check, or a grey picture; raises ValueError if it cannot measure.

        Here it passes them through the model, which may give anything: neither `see` nor `measure` is called.
        """
        pass_through(model, samples)

    def try_input(self, samples: Samples) -> None:
        """Looks at samples of the training: raises ValueError where the like of them could not be measured."""

    def try_output(self, model: nn.Module, samples: Samples) -> None:
        """Looks at what the model gives for these after the first step: raises ValueError as `try_out` does."""

    # The schedule.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if "_try_out" not in vars(self):
            raise ValueError(f"{type(self).__name__}.__init__ must call super().__init__(), as that of every Probe")
        if stage == "fit":
            check_order(self, trainer)
        self._has_seen_samples = False
        self._left_out.begin()
        self._try_out.begin()
        self._logged_figures.tags.clear()
        self._measured.begin()

    def takes_part(self) -> bool:
        """Whether it measures validations and tests at all: not where another does so for it."""
        return True

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the current pass is one to measure."""
        return self.takes_part() and is_measured(trainer, self.every_n_epochs)

    def _see_batch(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self._has_seen_samples = True
        self._left_out.let_go()
        if not (self.is_due(trainer) or trainer.sanity_checking and self.takes_part()):
            return
        is_first = index not in self._streams
        if is_first:
            self._normalized.begin()
            stream = SampleStream(trainer, running_loaders(trainer)[index], self.max_samples, self.batch_keys)
            if stream.caveat is not None and (stream.leaves_some_out or self.depends_on_ids):
                rank_zero_warn(stream.caveat)
            self._streams[index] = stream
        samples = self._streams[index].take(batch, module.device)
        if samples is None:
            return
        model, samples = self.as_measured(module, samples)
        with explained(type(self).__name__, module, model, samples):
            if not trainer.sanity_checking:
                self.see(model, samples, index)
            elif is_first:
                self._try_out.at_sanity_check(model, samples, index)
        if is_first and not trainer.sanity_checking and self._has_pictures() and trainer.is_global_zero:
            with measuring(model, samples) as (x, y):
                self._pictures_of_pass.keep(self.draw(model, x, y), index)

    def _conclude_pass(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._left_out.let_go()
        # A process may have no samples of a loader, or none at all, and yet must take part in what all do together.
        self._has_seen_samples = trainer.strategy.reduce_boolean_decision(self._has_seen_samples, all=False)
        if trainer.sanity_checking:
            self._try_out.end_sanity_check(trainer)
        if self.is_due(trainer):
            for index in range(len(running_loaders(trainer))):
                with named(type(self).__name__):
                    self.conclude(trainer, module, stage, index)
                if self._has_pictures():
                    self._pictures_of_pass.publish(trainer, stage, index)
            check_rankings(trainer, self.logs, self.every_n_epochs)
        self._streams.clear()

    def _has_pictures(self) -> bool:
        return type(self).draw is not Probe.draw

    # A training around it.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        probes = callbacks_of(trainer, Probe)
        if probes[0] is self:  # one speaks for all
            check_monitors(trainer, [tag for probe in probes for tag in probe.tags()])
        check_rankings(trainer, self.logs, self.every_n_epochs)
        if probes[0] is self:
            say_who_measures_nothing(trainer, [probe for probe in probes if not probe.measures_training])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._logged_figures.take_back(trainer)
        if is_to_measure(trainer):
            self._try_out.before_step(pl_module, batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._try_out.after_step()

    # The hooks.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.takes_part():
            running_loaders(trainer)  # refuses those that it could not number
        self._streams.clear()
        self.forget()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        probes = (probe for probe in callbacks_of(trainer, Probe) if probe.takes_part())
        if next(probes, None) is self:  # one speaks for all
            self._left_out.watch(pl_module, batch, dataloader_idx)

    on_test_batch_start = on_validation_batch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with named(type(self).__name__):
            self._see_batch(trainer, pl_module, batch, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude_pass(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude_pass(trainer, pl_module, "test")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if "_left_out" in vars(self):  # not where a subclass forgets the constructor
            self._left_out.let_go()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_empty_training(trainer)
        if stage in ("validate", "test") and not self._has_seen_samples:
            refuse_empty_pass(trainer, stage, type(self).__name__)
