"""`is_measured`: which passes a callback measures; `CloserLook`: at which of those it also draws and probes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn


def is_measured(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether the pass that runs is one to measure: in a fit the validations of every n-th epoch, else every one."""
    if trainer.sanity_checking:
        return False
    return trainer.state.fn != TrainerFn.FITTING or (trainer.current_epoch + 1) % every_n_epochs == 0


class CloserLook:
    """The first measured pass of a fit, the first one of every n epochs, and the last one; outside of a fit every one.

    Args:
        every_n_epochs: n, >= 1.
        measured_every: the validations of every so many epochs are measured, >= 1.
        place: its key in checkpoints.
    """

    def __init__(self, every_n_epochs: int, measured_every: int, place: str = "touchstone/closer_look") -> None:
        self._every_n_epochs, self._measured_every, self._place = every_n_epochs, measured_every, place
        self._round_of_last: int | None = None

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether it is due at the measured pass that begins; asked once for each."""
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch = trainer.current_epoch + 1
        this_round = epoch // self._every_n_epochs
        every = math.lcm(self._measured_every, trainer.check_val_every_n_epoch or 1)
        is_last = trainer.max_epochs is not None and epoch + every > trainer.max_epochs > 0  # as far as is known
        is_due = is_last or this_round != self._round_of_last
        self._round_of_last = this_round
        return is_due

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Puts into a checkpoint when the last one was; see `WarmStarts.save`."""
        checkpoint[self._place] = self._round_of_last

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Goes on by a checkpoint, if it tells."""
        self._round_of_last = checkpoint.get(self._place)
