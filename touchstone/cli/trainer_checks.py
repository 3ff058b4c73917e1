"""What would end a run in its midst, or be found after its first epochs, is refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace
from lightning.pytorch import Callback

from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.passes.entries import common_suite

from .given import Given
from .mistakes import UsageError

ALLOWED = {
    "accumulate_grad_batches": "an integer above 0",
    "check_val_every_n_epoch": "an integer above 0 or null",
    "val_check_interval": "an integer above 0, a share of an epoch such as 0.5, or a time",
}
"""What the trainer takes as 0, too, and divides by."""


def check_trainer_counts(trainer: Namespace, given: Given | None) -> None:
    """Raises UsageError where the config of the trainer has a count below 1; with its place, where that is known."""
    for key, allowed in ALLOWED.items():
        value = trainer.get(key)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"{_place(given, key)}trainer.{key} must be {allowed}, got {value}")


def check_common_pass(callbacks: Sequence[Callback], given: Given | None) -> None:
    """Raises UsageError where entries of `RobustAccuracy` do not fit into one pass; with the place of the first such.

    They are checked together, the first two, then three, to know which one does not fit.
    """
    entries: list[RobustAccuracy] = []
    for number, callback in enumerate(callbacks):
        if isinstance(callback, RobustAccuracy):
            entries.append(callback)
            try:
                common_suite(entries)
            except ValueError as error:
                raise UsageError(f"{_place(given, 'callbacks', number)}{error}") from error


def _place(given: Given | None, *keys: str | int) -> str:
    """Where a value of the trainer stands, with a colon behind it; nothing where that is not known."""
    if given is None:
        return ""
    found = given.value["trainer"]
    for key in keys:
        found = found.value[key]
    return f"{found.place}: "
