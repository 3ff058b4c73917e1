"""Why a training will end without a validation that is measured."""

from __future__ import annotations

import math

import lightning.pytorch as pl


def why_no_pass(trainer: pl.Trainer) -> str | None:
    """Why there will be no validation, in words; None where there will be, or the user has switched it off."""
    if trainer.limit_val_batches == 0:
        return None
    if not trainer.enable_validation:
        return "the training has no validation: give it a val_dataloader, and its module a validation_step"
    counts = trainer.num_val_batches  # empty until a validation has set up its loaders
    return "the validation has no samples; look at the data loader" if counts and not sum(counts) else None


def why_too_late(trainer: pl.Trainer, measured_every: int) -> str | None:
    """That the first validation to measure comes after the last epoch, in words; None where it does not.

    Args:
        trainer: begins to train.
        measured_every: the validations of every n-th epoch are measured.
    """
    every = math.lcm(measured_every, trainer.check_val_every_n_epoch or 1)
    first, last = (trainer.current_epoch // every + 1) * every, trainer.max_epochs
    if last is None or not 0 <= last < first or trainer.limit_val_batches == 0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return f"the first validation that it measures is that of epoch {first}, and the training has {last}"
