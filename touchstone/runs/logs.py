"""Logs that cannot be written are no reason to end a training, which costs more than they do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn


class LostLogs:
    """What a trainer could not write.

    Attributes:
        reasons: what was warned of, each once.
        files: those of which the last writing failed: they are missing, or those of an earlier measurement.
    """

    def __init__(self) -> None:
        self.reasons: set[str] = set()
        self.files: set[Path] = set()

    @classmethod
    def of(cls, trainer: pl.Trainer) -> LostLogs:
        """Those of a trainer, which are none before the first."""
        return vars(trainer).setdefault("_lost_logs", cls())

    @contextmanager
    def may_grow(self, *files: Path, ends_run: bool = False) -> Iterator[None]:
        """A block that writes logs: where the disk refuses them, it ends there, with a warning instead of the error.

        Args:
            files: which the block writes, all of them or none.
            ends_run: whether it is the error nevertheless.
        """
        try:
            yield
            self.files.difference_update(files)
        except OSError as error:
            self.files.update(files)
            if ends_run:
                raise
            self._say(error.strerror or str(error))

    def _say(self, reason: str) -> None:
        if reason in self.reasons:
            return
        self.reasons.add(reason)
        # Without a registry: in the ones that it keeps, Python takes the next trainer's warning for this one again.
        text = f"logs are lost ({reason}): the run goes on without them"
        warnings.warn_explicit(text, UserWarning, __file__, lineno=1)


def may_be_lost(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """A block that writes logs: where the disk refuses them, it ends there, with a warning instead of the error."""
    return LostLogs.of(trainer).may_grow()


def fit_may_lose(trainer: pl.Trainer, *files: Path) -> AbstractContextManager[None]:
    """A block that writes what an evaluation is made for, in these files, all of them or none.

    A log to a training, which goes on without it; to `validate` and `test` the error, which ends them.
    """
    return LostLogs.of(trainer).may_grow(*files, ends_run=trainer.state.fn != TrainerFn.FITTING)
