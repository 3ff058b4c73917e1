"""`ExactResume`: a run that is stopped and goes on ends as if it had never been stopped."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from torch.utils.data import DataLoader

from touchstone.runs.of_trainer import callbacks_of
from touchstone.runs.run_folder import tensorboard_writers

from .parts.passes.figures import Figures
from .parts.passes.processes import gather
from .parts.resuming.double_weights import widen_before_loading
from .parts.resuming.enduring_workers import with_enduring_workers
from .parts.resuming.of_process import copied_to, held, take_up
from .parts.resuming.own_order import Position, in_own_order
from .parts.resuming.plateau import go_on_scheduling, is_epoch_to_end
from .probe import Probe

_PLACE = "touchstone/exact_resume"


class ExactResume(pl.Callback):
    """Lets `Trainer.fit(ckpt_path=...)` continue bit for bit, in the middle of an epoch too.

    Lightning's checkpoint has weights, optimizer, schedulers and counts. This one adds the random states of every
    process, the metrics of the epoch so far, the last figures, for a `ReduceLROnPlateau` and others that rank weights,
    the gradients of every process that wait for more batches of their step, which all processes hold meanwhile, and the
    place in the training data, whose order and augmentation depend on the seed and the epoch only (`in_own_order`).
    What TensorBoard shows is written to the disk with each checkpoint.
    With `precision: 64-true` weights are loaded in float64, also to be evaluated.
    A module, or one inside it, that keeps something of its own from step to step defines `process_state()`, of tensors,
    numbers and lists, and `load_process_state(state)`: it is kept for each process.

    Limits: data that come from no `DataLoader` begin anew; worker processes that persist draw other numbers; figures of
    an epoch that a module logs as numbers, and not as torchmetrics, are those since the last start, and all figures of
    one in whose middle the fit had ended, as by `max_steps`, before the checkpoint was saved; Lightning's
    `StochasticWeightAveraging` does not go on exactly, of which a warning tells; a validation that would have followed
    the batch at which a checkpoint was written, as by `every_n_train_steps`, is left out, and where
    `check_val_every_n_epoch` is above 1, the random numbers that its data draw; of one written at the last batch of an
    epoch, before what ends it, a scheduler that waits for a plateau loses the step of that epoch, and one that waits
    for it step by step the step that was due then; a fit that `max_steps` ended with an epoch, and that goes on with
    `max_epochs=-1`, begins its next epoch wrongly from a checkpoint saved after the fit, or without a validation;
    another number of processes is another run.
    """

    def __init__(self) -> None:
        self._seed = 0
        self._saved: dict[str, Any] | None = None
        self._resumes = False
        self._num_logged: int | None = None
        self._figures = Figures("ExactResume")  # from before the stop, until the next step

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        widen_before_loading(trainer, pl_module)
        if stage != "fit":
            return
        self._figures.tags.clear()
        self._seed, self._saved, self._resumes = torch.initial_seed() % (1 << 63), None, False
        source = trainer.fit_loop._data_source
        ordered = _Ordered(source.instance, source.name)
        ordered.position = lambda: self._position(trainer)
        trainer.fit_loop._data_source = ordered
        validation = trainer.fit_loop.epoch_loop.val_loop
        validation._data_source = _Enduring(validation._data_source.instance, validation._data_source.name)

    def _position(self, trainer: pl.Trainer) -> Position:
        """Where the iteration begins that is asked for: after a checkpoint in the middle of an epoch, there."""
        epoch, num_taken = trainer.current_epoch, 0
        batches = trainer.fit_loop.epoch_loop.batch_progress
        if self._resumes and batches.is_last_batch:  # the epoch counts as done only after its validation
            epoch = max(epoch, trainer.fit_loop.epoch_progress.current.ready)
        elif self._resumes:
            num_taken = batches.current.ready
        return Position(self._seed, epoch, trainer.global_rank, num_taken)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        is_mid_epoch = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        _as_if_an_epoch_ended(progress)
        if is_mid_epoch:
            _as_if_an_epoch_went_on(progress)
            checkpoint["epoch"] = progress["current"]["completed"]
        figures = copied_to(torch.device("cpu"), _last_figures(trainer))
        states = gather({**held(trainer, pl_module, is_mid_epoch=is_mid_epoch), "figures": figures})
        checkpoint[_PLACE] = {
            "seed": self._seed,
            "num_logged": _num_logged(trainer),
            "is_epoch_to_end": is_epoch_to_end(trainer),
            "validation_follows": _validation_follows(trainer),
            "of_ranks": states,
        }
        for writer in tensorboard_writers(trainer) if trainer.is_global_zero else ():
            writer.flush()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._saved, self._resumes = checkpoint.get(_PLACE), True
        if callbacks_of(trainer, StochasticWeightAveraging):
            rank_zero_warn(
                "ExactResume: with StochasticWeightAveraging, which Lightning takes up again with the next epoch only, "
                "this is no longer the run that was stopped; with EMAWeightAveraging it would be"
            )
        if self._saved is None:
            rank_zero_warn("ExactResume: the checkpoint was saved without it, so that random numbers begin anew")
        else:
            self._seed = self._saved["seed"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._figures.take_back(trainer)
        if self._num_logged is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._num_logged
            self._num_logged = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        saved, self._saved, self._resumes = self._saved, None, False
        self._num_logged = None if saved is None else saved["num_logged"]
        if saved is None:
            return
        loop = trainer.fit_loop.epoch_loop
        is_last = loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch
        if is_last and not saved.get("validation_follows", True):
            loop._restarting = False  # else Lightning iterates over the data of a validation, as if one had followed
        states = saved["of_ranks"]
        if len(states) != trainer.world_size:
            rank_zero_warn(
                f"ExactResume: the checkpoint is of {len(states)} processes, and there are {trainer.world_size}: "
                "random numbers begin anew"
            )
            return
        mine = states[trainer.global_rank]
        take_up(pl_module, mine)
        if "figures" in mine:
            trainer.callback_metrics.update(copied_to(pl_module.device, mine["figures"]["figures"]))
            self._figures.tags.update(mine["figures"]["fresh"])
            if saved["is_epoch_to_end"]:
                go_on_scheduling(trainer)


def _last_figures(trainer: pl.Trainer) -> dict[str, Any]:
    """The figures that callbacks and schedulers see now, and the tags of those that the next step takes away."""
    fresh = {tag for probe in callbacks_of(trainer, Probe) for tag in probe._logged_figures.tags}
    return {"figures": dict(trainer._logger_connector._callback_metrics), "fresh": sorted(fresh)}


def _as_if_an_epoch_ended(progress: dict[str, dict[str, int]]) -> None:
    """Lightning goes on from the end of an epoch, and not from the start of the next one: there it would skip it."""
    for counts in progress.values():
        if counts["ready"] == counts["started"] + 1 and counts["started"] == counts["completed"] > 0:
            counts["ready"] -= 1
            counts["completed"] -= 1


def _as_if_an_epoch_went_on(progress: dict[str, dict[str, int]]) -> None:
    """A fit that ends inside an epoch, as by `max_steps`, counts it as done: Lightning would go on with the next."""
    for counts in progress.values():
        if counts["ready"] == counts["started"] == counts["processed"] > 0:  # of a save at its end, or after the fit
            counts["processed"] = counts["completed"] = counts["ready"] - 1


def _num_logged(trainer: pl.Trainer) -> int:
    """The number of steps by which Lightning will place the next figures; its own checkpoint does not tell."""
    loop = trainer.fit_loop.epoch_loop
    batches: Any = loop.batch_progress.current
    is_counted = not trainer.validating and batches.completed == batches.processed
    return loop._batches_that_stepped + (not is_counted and not loop._should_accumulate())


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Whether the batch that was trained on last is followed by a validation."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


class _Ordered(_DataLoaderSource):
    """Gives the training data in an order of their own."""

    position: Any

    def dataloader(self) -> Any:
        loaders = super().dataloader()
        for loader in _each(loaders):
            in_own_order(loader, self.position)
        return loaders


class _Enduring(_DataLoaderSource):
    """Gives the validation data, by workers that a signal does not end."""

    def dataloader(self) -> Any:
        loaders = super().dataloader()
        for loader in _each(loaders):
            with_enduring_workers(loader)
        return loaders


def _each(loaders: Any) -> list[DataLoader]:
    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)
    return [loader for loader in combined.flattened if isinstance(loader, DataLoader)]
