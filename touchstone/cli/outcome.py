"""How a run ends: what it has found, or where it failed what is left of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import TensorBoardLogger

from touchstone.callbacks import Probe, RobustAccuracy

from ..runs.logs import LostLogs
from ..runs.of_trainer import callbacks_of
from ..runs.run_folder import run_folder
from .report_table import print_end, read_health
from .resuming import options_to_go_on
from .stored_reports import REPORTS, fresh_report


def shows_own_table(trainer: Trainer) -> bool:
    """Whether a run ends with a table of this project, and its folder has what Lightning's would add; a collective."""
    return bool(callbacks_of(trainer, RobustAccuracy)) and run_folder(trainer) is not None


def show_end(trainer: Trainer, since: float, *, shows_folder: bool, are_figures_shown: bool) -> None:
    """Prints what a run has found; a collective of which the first process speaks.

    Args:
        trainer: has run.
        since: when the run began, in seconds of the epoch.
        shows_folder: whether to say where everything lies.
        are_figures_shown: whether Lightning has shown the figures of measurements of one's own.
    """
    folder = run_folder(trainer)  # some loggers are told the name of their run only as it begins
    if not trainer.is_global_zero:
        return
    report, language = (fresh_report(folder / name, since) if folder else None for name in REPORTS)
    kept = (callback.last_summary for callback in callbacks_of(trainer, RobustAccuracy))
    logger = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
    own = [] if are_figures_shown else filter(_is_own, callbacks_of(trainer, Probe))
    print_end(
        folder if shows_folder else None,
        report or next(filter(None, kept), None),
        Path(logger.save_dir) if logger else None,
        language=language,
        figures={tag: value for probe in own for tag, value in Probe.last_figures(probe, trainer).items()},
        is_lost=any(path.name in REPORTS for path in LostLogs.of(trainer).files),
    )


def note_what_is_left(
    error: BaseException, folder: Path | None, since: float, *, made: Sequence[Path], fit: Namespace | None
) -> None:
    """Adds to an error what its run has written, and how to go on; a run that has written nothing leaves no folder.

    Args:
        error: its `__notes__` grow.
        folder: of the run, None where it has none.
        since: when the run began, in seconds of the epoch.
        made: the folders that were made for it, the innermost first.
        fit: the config of a training, None for another job.
    """
    if folder is None or not _is_written_in(folder, since):
        for path in made:
            with suppress(OSError):  # where it is not empty, or never was made
                path.rmdir()
        return
    notes = vars(error).setdefault("__notes__", [])
    notes.append(f"what was written until then: {folder}")
    config = folder / "config.yaml"
    if fit is not None and config.is_file() and (folder / "checkpoints" / "last.ckpt").is_file():
        notes.append(f"to go on: python train.py fit --config {config} {options_to_go_on(fit, folder)}")
    notes += read_health(folder, since)


def close_bars() -> None:
    """Ends the line of a progress bar that is open: why a run has ended begins a line of its own."""
    for bar in list(getattr(Tqdm, "_instances", ())):
        bar.close()


def _is_own(probe: Probe) -> bool:
    """Whether it is a measurement of the user's, and not one of this project's, or like one of them."""
    kinds = (kind for kind in type(probe).__mro__ if kind.__module__.startswith("touchstone."))
    return next(kinds, None) is Probe


def _is_written_in(folder: Path, since: float) -> bool:
    """Whether a run folder holds a file that is not older than `since`, in seconds of the epoch."""
    return any(path.is_file() and path.stat().st_mtime >= since for path in folder.rglob("*"))
