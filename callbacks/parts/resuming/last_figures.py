"""The figures by which weights are ranked, kept over a stop, and the schedulers that wait for a plateau of one."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from ...probe import Probe


def last_figures(trainer: pl.Trainer) -> dict[str, Any]:
    """The figures that callbacks and schedulers see now, and the tags of those that the next step takes away."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    fresh = {tag for callback in callbacks if isinstance(callback, Probe) for tag in callback._fresh}
    return {"figures": dict(trainer._logger_connector._callback_metrics), "fresh": sorted(fresh)}


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
