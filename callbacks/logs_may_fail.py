"""`LogsMayFail`: a training does not end because its logs cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from touchstone.own_class import put_before
from touchstone.runs.logs import LostLogs


class LogsMayFail(pl.Callback):
    """Warns once if the files of TensorBoard or a `CSVLogger` can no longer be written, and lets the run continue.

    For a disk that is full or became read-only: what was written until then stays readable. A checkpoint that cannot be
    written ends the run. So does a disk that takes nothing from the start, and an error of a logger of another kind.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            for kind, enduring in ((TensorBoardLogger, _Enduring), (CSVLogger, _EnduringTable)):
                if isinstance(logger, kind) and not isinstance(logger, enduring):
                    put_before(logger, enduring)
            if isinstance(logger, (_Enduring, _EnduringTable)):
                logger.lost = LostLogs.of(trainer)


class _EnduringTable(CSVLogger):
    """As `_Enduring`; rows that could not be written are written with later ones, where there is room again."""

    lost: LostLogs

    def save(self) -> None:
        with self.lost.may_grow():
            super().save()


class _Enduring(TensorBoardLogger):
    """What is put before the class of a logger; `lost` is of the trainer that it logs for."""

    lost: LostLogs

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        writer = super().experiment
        if not isinstance(writer._get_file_writer, _Files):
            writer._get_file_writer = _Files(writer._get_file_writer, self)
        return writer

    def save(self) -> None:
        with self.lost.may_grow():
            super().save()


class _Files:
    """Gives a summary writer its file, and one that takes anything where there can be none."""

    def __init__(self, get: Callable[[], Any], logger: _Enduring) -> None:
        self._get, self._logger = get, logger

    def __call__(self) -> Any:
        with self._logger.lost.may_grow():
            found = self._get()
            # Its own thread writes, and would print the whole way to an error there: so the file itself is replaced.
            records = found.event_writer._async_writer._writer
            if not isinstance(records._writer, _File):
                records._writer = _File(records._writer, self._logger)
            return found
        return _Nobody()


class _File:
    """A file of records, which takes no more after one that it could not take: behind half a record none is read."""

    def __init__(self, file: Any, logger: _Enduring) -> None:
        self._file, self._logger, self._is_lost = file, logger, False

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
        with self._logger.lost.may_grow():
            getattr(self._file, name)(*arguments)
            self._is_lost = False


class _Nobody:
    """Writes nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
