"""`check_trainer_counts`: zeros that the trainer takes, and by which it divides in the midst of a run."""

from __future__ import annotations

from jsonargparse import Namespace

from .given import Given
from .mistakes import UsageError

ALLOWED = {
    "accumulate_grad_batches": "an integer above 0",
    "check_val_every_n_epoch": "an integer above 0 or null",
    "val_check_interval": "an integer above 0, a share of an epoch such as 0.5, or a time",
}


def check_trainer_counts(trainer: Namespace, given: Given | None) -> None:
    """Checks what the trainer counts by.

    Args:
        trainer: its config.
        given: what was given to the subcommand, None where that is not known.

    Raises:
        UsageError: a count is below 1; with its place.
    """
    for key, allowed in ALLOWED.items():
        value = trainer.get(key)
        if isinstance(value, int) and value < 1:
            place = f"{given.value['trainer'].value[key].place}: " if given is not None else ""
            raise UsageError(f"{place}trainer.{key} must be {allowed}, got {value}")
