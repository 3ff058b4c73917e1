"""`Probe`: the base of every measurement on validation and test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from touchstone.nets import Normalize

from .parts.passes.averaged_weights import check_order
from .parts.passes.first_batch import grey_picture
from .parts.passes.fresh_figures import check_ranking, rankings
from .parts.passes.loaders import loader_suffix, running_loaders
from .parts.passes.measuring import measuring
from .parts.passes.no_pass import why_no_pass, why_too_late
from .parts.passes.processes import gather_by_id
from .parts.passes.samples import Samples, SampleStream

NUM_TOLD_BY = 8  # images without a dark pixel tell pixels from normalized batches; one alone may be a bright picture


class Probe(pl.Callback):
    """Measures something on the samples of each validation and test pass, and changes nothing.

    A measurement of one's own is a subclass with one method, `measure`.

    Args:
        every_n_epochs: during `fit`, measure at the validations of every n-th epoch, >= 1.
        max_samples: measure only the first samples of the dataset, >= 1; None for all.
        normalization: mean and standard deviation per channel, if the batches come normalized; then `measure`
            gets pixels in [0, 1] all the same, and a model that takes them.
        batch_keys: the keys of images and labels, if the batches are dicts.

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> class Confidence(Probe):
        ...     def measure(self, model, x, y):
        ...         return {"confidence": model(x).softmax(1).amax(1)}  # logged as val/confidence
    """

    depends_on_ids: ClassVar[bool] = False
    """Whether what is measured of a sample depends on its id, as random starts do."""
    tries_on_training: ClassVar[bool] = False
    """Whether `try_out` gets a grey picture before the first step of a training that had no sanity check."""

    measures_training: ClassVar[bool] = False
    """Whether it has figures of the training itself, too."""

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        batch_keys: tuple[str, str] | None = None,
    ) -> None:
        name = type(self).__name__
        if every_n_epochs < 1:
            raise ValueError(f"{name}(every_n_epochs=...) must be >= 1, got {every_n_epochs}")
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"{name}(max_samples=...) must be >= 1, or None for all samples, got {max_samples}")
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self.normalization = None if normalization is None else tuple(tuple(part) for part in normalization)
        self.normalize = None if normalization is None else Normalize(*normalization)
        self.batch_keys = None if batch_keys is None else tuple(batch_keys)
        self._streams: dict[int, SampleStream] = {}
        self._values: dict[int, dict[str, list[Tensor]]] = {}
        self._fresh: set[str] = set()
        self._has_seen_samples = False
        self._has_tried = False
        self._num_seen, self._were_beyond_pixels = 0, False  # of the loader that is measured

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Measures a batch, in evaluation mode, with gradients on and the weights frozen.

        Args:
            model: pixels to logits.
            x: pixels in [0, 1], float `(N, ...)`, or tokens, whole numbers `(N, T)`.
            y: the true classes, int64 `(N,)`; for a language model the tokens that follow, `(N, T)`.

        Returns:
            Values by name, one per sample, `(N,)`. Their mean over all samples is logged as `val/NAME` or `test/NAME`.
        """
        raise TypeError(f"{type(self).__name__} must define measure(self, model, x, y)")

    # What a subclass that is more than a mean over samples overrides.

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        """Takes in the next samples of the pass."""
        with measuring(model, samples) as (x, y):
            measured = self.measure(model, x, y)
        self.keep(samples, measured, loader_index)

    def keep(self, samples: Samples, measured: Mapping[str, Tensor], loader_index: int) -> None:
        """Keeps what was measured of the next samples of the pass, one value per sample, `(N,)`, by name."""
        kept = self._values.setdefault(loader_index, {})
        named = {"_id": samples.ids, **measured}
        if kept and kept.keys() != named.keys():
            raise ValueError(
                f"{type(self).__name__}.measure: it must have the same names for every batch, "
                f"got {list(kept)[1:]} and then {list(measured)}"
            )
        for name, values in named.items():
            if values.shape != samples.ids.shape:
                raise ValueError(
                    f"{type(self).__name__}.measure: {name!r} must have one value per sample, "
                    f"({len(samples)},), got {tuple(values.shape)}"
                )
            kept.setdefault(name, []).append(values.detach())

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        """Looks at the first samples of the sanity check: what is wrong with them is better said before training."""

    def as_measured(self, module: nn.Module, samples: Samples) -> tuple[nn.Module, Samples]:
        """The model that is measured, and its samples: before any normalization of the batches."""
        if self.normalize is None:
            return module, samples
        return self._of_pixels(module, samples.x.device), replace(samples, x=self._pixels(samples.x))

    def _of_pixels(self, module: nn.Module, device: torch.device) -> nn.Module:
        return module if self.normalize is None else nn.Sequential(self.normalize.to(device), module)

    def _pixels(self, x: Tensor) -> Tensor:
        """Batches as they were before they were normalized."""
        assert self.normalize is not None
        name = type(self).__name__
        is_there_below_0 = bool((self.normalize.mean > 0).any())  # a value that a black pixel has
        self._num_seen += len(x)
        self._were_beyond_pixels |= bool(len(x)) and (float(x.min()) < 0 or float(x.max()) > 1)
        if is_there_below_0 and not self._were_beyond_pixels and self._num_seen >= NUM_TOLD_BY:
            raise ValueError(
                f"{name}(normalization=...): the batches lie in [0, 1] and hold no value below 0, so that they are "
                "pixels already; leave the option out"
            )
        pixels = self.normalize.undo(x)
        rounded = pixels.clamp(0, 1)
        rounding_error = 1e-3 if x.element_size() > 2 else 0.02
        if not bool(((pixels - rounded).abs() < rounding_error).all()):
            raise ValueError(
                f"{name}(normalization=...) must be the mean and standard deviation that the batches were normalized "
                f"with, so that undoing it gives pixels in [0, 1]; got {self.normalization}, and values from "
                f"{float(pixels.min()):.3g} to {float(pixels.max()):.3g}"
            )
        return rounded

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        """Logs what the pass has shown of a loader; called on every process, also on one without samples of it."""
        for name, value in self.means(loader_index).items():
            self.log_figure(trainer, module, f"{stage}/{name}", value, loader_index)

    def means(self, loader_index: int) -> dict[str, Tensor]:
        """The mean of what was kept by each name, over the samples of all processes; a collective that drops it."""
        values = {name: torch.cat(parts) for name, parts in self._values.pop(loader_index, {}).items()}
        values = gather_by_id(values)
        return {name: value.double().mean().float() for name, value in values.items() if name != "_id"}

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
            ValueError: another callback has logged one under this tag: Lightning would log the mean of both.
        """
        tag += loader_suffix(trainer, loader_index)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, Probe) and other is not self and tag in other._fresh:
                names = f"{type(other).__name__} and {type(self).__name__}"
                raise ValueError(f"two callbacks, {names}, log {tag!r}, which would be the mean of both: leave one out")
        self._fresh.add(tag)
        module.log(tag, value, add_dataloader_idx=False, sync_dist=True, **options)

    def logs(self, tag: str) -> bool:
        """Whether a figure is one of its own, as far as is known: here, from the last measurement."""
        return tag in self._fresh

    def forget(self) -> None:
        """Drops what was taken in; called before each pass, since an interrupted one may have left something."""
        self._values.clear()

    # The schedule.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            check_order(self, trainer)
        self._has_seen_samples, self._has_tried = False, not self.tries_on_training
        self._fresh.clear()

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the current pass is one to measure."""
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != TrainerFn.FITTING or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _see_batch(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self._has_seen_samples = True
        if not (self.is_due(trainer) or trainer.sanity_checking):
            return
        is_first = index not in self._streams
        if is_first:
            self._num_seen, self._were_beyond_pixels = 0, False
            stream = SampleStream(trainer, running_loaders(trainer)[index], self.max_samples, self.batch_keys)
            if stream.caveat is not None and (stream.leaves_some_out or self.depends_on_ids):
                rank_zero_warn(stream.caveat)
            self._streams[index] = stream
        samples = self._streams[index].take(batch)
        if samples is None:
            return
        model, samples = self.as_measured(module, samples)
        if not trainer.sanity_checking:
            self.see(model, samples, index)
        elif is_first:
            self._has_tried = True
            self.try_out(model, samples)

    def _conclude_pass(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        # A process may have no samples of a loader, or none at all, and yet must take part in what all do together.
        self._has_seen_samples = trainer.strategy.reduce_boolean_decision(self._has_seen_samples, all=False)
        if self.is_due(trainer):
            for index in range(len(running_loaders(trainer))):
                self.conclude(trainer, module, stage, index)
            self._check_rankings(trainer)
        self._streams.clear()

    # New weights and old figures.

    def _check_rankings(self, trainer: pl.Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        for ranking in rankings(trainer):
            if self.logs(ranking.monitor):
                check_ranking(ranking, trainer, self.every_n_epochs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_rankings(trainer)
        probes = [callback for callback in trainer.callbacks if isinstance(callback, Probe)]  # type: ignore[attr-defined]
        if probes[0] is not self:  # one speaks for all
            return
        idle = [probe for probe in probes if not probe.measures_training]
        if idle and (reason := why_no_pass(trainer)):
            names = " and ".join(dict.fromkeys(type(probe).__name__ for probe in idle))
            rank_zero_warn(f"{names} will measure nothing: {reason}")
            return
        for probe in idle:
            if reason := why_too_late(trainer, probe.every_n_epochs):  # which was chosen, and may be for a later test
                rank_zero_info(f"{type(probe).__name__} will measure nothing in this fit: {reason}")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        while self._fresh:
            trainer.callback_metrics.pop(self._fresh.pop(), None)
        if not self._has_tried and (grey := grey_picture(batch, self.batch_keys)) is not None:
            self.try_out(self._of_pixels(pl_module, grey.x.device), grey)
        self._has_tried = True

    # The hooks.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        running_loaders(trainer)  # refuses those that it could not number
        self._streams.clear()
        self.forget()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._see_batch(trainer, pl_module, batch, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude_pass(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude_pass(trainer, pl_module, "test")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage in ("validate", "test") and not self._has_seen_samples and self._limit(trainer, stage) != 0:
            raise ValueError(
                f"{type(self).__name__} has measured nothing: the {'validation' if stage == 'validate' else 'test'} "
                "has no samples; look at the data loader"
            )

    @staticmethod
    def _limit(trainer: pl.Trainer, stage: str) -> float | int:
        """The share or number of batches that the user wants of the pass; 0 switches it off."""
        return trainer.limit_val_batches if stage == "validate" else trainer.limit_test_batches
