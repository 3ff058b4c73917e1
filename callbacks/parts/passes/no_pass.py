"""Why there is nothing to measure: a training without a batch or a validation, or a pass without samples."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from ...probe import Probe


def say_who_measures_nothing(trainer: pl.Trainer, probes: Sequence[Probe]) -> None:
    """Warns where there will be no validation for these, and tells where that was chosen, perhaps for a later test."""
    if probes and (reason := why_no_pass(trainer)):
        names = " and ".join(dict.fromkeys(type(probe).__name__ for probe in probes))
        rank_zero_warn(f"{names} will measure nothing: {reason}")
        return
    for probe in probes:
        if reason := why_too_late(trainer, probe.every_n_epochs):
            rank_zero_info(f"{type(probe).__name__} will measure nothing in this fit: {reason}")


def is_to_measure(trainer: pl.Trainer) -> bool:
    """Whether what begins may have a pass to measure, which a fit without a validation has not."""
    return trainer.state.fn != TrainerFn.FITTING or trainer.enable_validation


def why_no_pass(trainer: pl.Trainer) -> str | None:
    """Why there will be no validation, in words; None where there will be, or the user has switched it off."""
    if trainer.limit_val_batches == 0:
        return None
    if not trainer.enable_validation:
        return "the training has no validation: give it a val_dataloader, and its module a validation_step"
    counts = trainer.num_val_batches  # empty until a validation has set up its loaders
    return "the validation has no samples; look at the data loader" if counts and not sum(counts) else None


def why_too_late(trainer: pl.Trainer, measured_every: int) -> str | None:
    """That the first validation to measure comes after the last epoch, in words; None where it does not."""
    every = math.lcm(measured_every, trainer.check_val_every_n_epoch or 1)
    first, last = (trainer.current_epoch // every + 1) * every, _num_epochs(trainer)
    if last >= first or trainer.limit_val_batches == 0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return f"the first validation that it measures is that of epoch {first}, and the training has {last}"


def _num_epochs(trainer: pl.Trainer) -> float:
    """How many epochs a training has by `max_epochs` and `max_steps`, one that steps cut short counted too."""
    num_epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    assert num_epochs is not None
    if trainer.max_steps < 0 or trainer.num_training_batches in (0, math.inf):
        return num_epochs
    steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(num_epochs, math.ceil(trainer.max_steps / steps_per_epoch))


def refuse_empty_pass(trainer: pl.Trainer, stage: str, asked_by: str) -> None:
    """Raises ValueError after a validation or test without samples, unless the user has switched it off.

    Where a `Tuner` looks for a batch size by one, it ends before it has begun.
    """
    if type(sys.exc_info()[1]).__name__ == "_TunerExitException":  # a private class of Lightning's
        return
    limit = trainer.limit_val_batches if stage == "validate" else trainer.limit_test_batches
    if limit != 0:
        raise ValueError(
            f"{asked_by} has measured nothing: the {'validation' if stage == 'validate' else 'test'} "
            "has no samples; look at the data loader"
        )


def refuse_empty_training(trainer: pl.Trainer) -> None:
    """Raises ValueError after a fit whose data had no batch, unless the user has switched the training off."""
    loop = trainer.fit_loop
    has_begun, num_drawn = loop.epoch_progress.total.ready > 0, loop.epoch_loop.batch_progress.total.ready
    # A stream has no length; where it gave nothing, somebody may have stopped the training before it was asked.
    is_empty_stream = trainer.num_training_batches == math.inf and has_begun and not num_drawn
    if trainer.num_training_batches == 0 or is_empty_stream and not trainer.should_stop:
        raise ValueError(
            "nothing was trained: the training data have no batch; look at the data loader, whose dataset is empty, or "
            "smaller than one batch with drop_last=True"
        )
