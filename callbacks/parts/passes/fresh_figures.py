"""New weights are never ranked by an old figure.

Lightning keeps a figure of a validation until the next one, for whoever ranks weights by it. A `Probe` takes its own
back when training goes on, so that saving, stopping or scheduling waits for a fresh one. Where that would be in vain,
the trainer is refused before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from touchstone.runs.of_trainer import callbacks_of

from .no_pass import why_no_pass


@dataclass(frozen=True)
class Ranking:
    """Someone who ranks weights by a figure, and cannot do without it.

    Attributes:
        who: its class.
        monitor: the tag of the figure.
        every_n_epochs: in which epochs it looks; None where it looks whenever some steps are done or some time is over.
        at_epoch_end: whether it looks at the end of the epoch, and not after a validation.
        rarer: what makes it look only in every n-th epoch, with `{n}` for the number, or wait for a figure.
        remedy: what makes it look after each validation, or wait for one.
    """

    who: str
    monitor: str
    every_n_epochs: int | None
    at_epoch_end: bool
    rarer: str
    remedy: str


def check_rankings(trainer: pl.Trainer, is_measured: Callable[[str], bool], measured_every: int) -> None:
    """Raises ValueError where someone would rank by a measured figure when there is none of the weights as they are."""
    for ranking in rankings(trainer) if trainer.state.fn == TrainerFn.FITTING else ():
        if is_measured(ranking.monitor):
            check_ranking(ranking, trainer, measured_every)


def rankings(trainer: pl.Trainer) -> Iterator[Ranking]:
    """All of them in a trainer that is about to train."""
    for callback in callbacks_of(trainer, pl.Callback):
        who, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if isinstance(callback, ModelCheckpoint) and monitor is not None:
            epochs = None if callback._every_n_epochs < 1 else callback._every_n_epochs
            at_epoch_end = callback._should_save_on_train_epoch_end(trainer)
            rarer = f"{who}(every_n_epochs={{n}})" + ("" if epochs else ", with no other interval")
            yield Ranking(who, str(monitor), epochs, at_epoch_end, rarer, f"{who}(save_on_train_epoch_end=False)")
        elif isinstance(callback, EarlyStopping) and callback.strict:
            at_epoch_end, waiting = bool(callback._check_on_train_epoch_end), f"{who}(strict=False)"
            yield Ranking(who, callback.monitor, 1, at_epoch_end, waiting, waiting)
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.strict and config.interval == "epoch":
            who, where = type(config.scheduler).__name__, "in its configuration"
            rarer, waiting = f"'frequency': {{n}} {where}", f"'strict': False {where}"
            yield Ranking(who, str(config.monitor), config.frequency, True, rarer, waiting)


def check_ranking(ranking: Ranking, trainer: pl.Trainer, measured_every: int) -> None:
    """Raises ValueError where someone would look for a figure when there is none of the weights as they are."""
    who = f"{ranking.who}(monitor={ranking.monitor!r})"
    if reason := why_no_pass(trainer):
        raise ValueError(f"{who} would look for its figure in vain: {reason}")
    looks_every, validates_every = ranking.every_n_epochs or 1, trainer.check_val_every_n_epoch or 1
    if not ranking.at_epoch_end:  # then it looks only where there are validations
        looks_every = math.lcm(looks_every, validates_every)
    if looks_every % measured_every:
        measured_every = math.lcm(measured_every, validates_every)
        raise ValueError(
            f"{who} would rank new weights by an old figure, since that is measured only every {measured_every} "
            f"epochs: set {ranking.rarer.format(n=measured_every)}, or every_n_epochs=1 where it is measured"
        )
    if ranking.at_epoch_end and not (ranking.every_n_epochs and _validates_at_end(trainer, ranking.every_n_epochs)):
        raise ValueError(
            f"{who} would rank weights by a figure from before their last steps, since it looks when no validation "
            f"has just ended: set {ranking.remedy}"
        )


def _validates_at_end(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether each of these epochs ends with a validation."""
    if trainer.check_val_every_n_epoch is None or every_n_epochs % trainer.check_val_every_n_epoch:
        return False
    if trainer.val_check_interval == 1.0:
        return True
    return trainer.val_check_batch is not None and trainer.num_training_batches % trainer.val_check_batch == 0
