"""`LogsMayFail`: a training does not end because TensorBoard's files cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from .parts.logs import may_be_lost, say_lost


class LogsMayFail(pl.Callback):
    """Warns once where TensorBoard's files cannot be written any more, and lets the run go on.

    A full disk, or one that became read-only: what was written until then stays readable. Checkpoints are no logs:
    where one cannot be written, the run ends. So it does where nothing can be written from the start.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        say_lost.cache_clear()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and not isinstance(logger, _Enduring):
                kind = type(logger)
                logger.__class__ = type(kind.__name__, (_Enduring, kind), {"__module__": kind.__module__})


class _Enduring(TensorBoardLogger):
    """What is put before the class of a logger."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        writer = super().experiment
        if not isinstance(writer._get_file_writer, _Files):
            writer._get_file_writer = _Files(writer._get_file_writer)
        return writer

    def save(self) -> None:
        with may_be_lost():
            super().save()


class _Files:
    """Gives a summary writer its file, and one that takes anything where there can be none."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get

    def __call__(self) -> Any:
        with may_be_lost():
            found = self._get()
            # Its own thread writes, and would print the whole way to an error there: so the file itself is replaced.
            records = found.event_writer._async_writer._writer
            if not isinstance(records._writer, _File):
                records._writer = _File(records._writer)
            return found
        return _Nobody()


class _File:
    """A file of records, which takes no more after one that it could not take: behind half a record none is read."""

    def __init__(self, file: Any) -> None:
        self._file, self._is_lost = file, False

    def write(self, record: bytes) -> None:
        self._do("write", record)

    def flush(self) -> None:
        self._do("flush")

    def close(self) -> None:
        self._do("close")

    def _do(self, name: str, *arguments: Any) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        with may_be_lost():
            getattr(self._file, name)(*arguments)
            self._is_lost = False


class _Nobody:
    """Writes nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
