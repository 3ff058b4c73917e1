"""`go_on_scheduling`: schedulers that wait for a plateau of a figure step in a resumed epoch too."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def is_epoch_to_end(trainer: pl.Trainer) -> bool:
    """Whether the schedulers have not yet seen the end of the epoch that was begun last."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return epochs.ready != epochs.started + 1  # between the end of one and the start of the next


def go_on_scheduling(trainer: pl.Trainer) -> None:
    """Lets schedulers that wait for a plateau step in the epoch that is resumed.

    Lightning leaves them out in it, since its checkpoint has no figures. Called when there are some again.
    """
    loop = trainer.fit_loop
    if loop.resumed_on_epoch_end and loop.epoch_loop._num_ready_batches_reached():  # saved just before they step
        loop.epoch_progress.current.completed -= 1  # they go by the number of the epoch
        loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        loop.epoch_progress.current.completed += 1
    loop._restarting = False
