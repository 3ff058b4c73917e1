"""The reports of a run folder and their tables of verdicts, read with words for what is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from touchstone.callbacks.parts.records.report_files import STAGES

from .failures import message_lines
from .mistakes import UsageError

COUNTS = {"num_samples": "samples", "num_texts": "texts"}
REPORTS = ("report.json", "language_report.json")
"""Of the first data loader that has samples."""

PATTERNS = ("report.json", "report_[0-9]*.json", "language_report.json", "language_report_[0-9]*.json")


def report_names(folder: Path) -> list[str]:
    """The names of the reports in a run folder, one for each data loader, those of language models last."""
    return [path.name for pattern in PATTERNS for path in sorted(folder.glob(pattern))]


def fresh_report(path: Path, since: float) -> dict[str, Any] | None:
    """A report of this run, or None where there is none or it is older than `since`, in seconds of the epoch."""
    if not path.is_file() or path.stat().st_mtime < since:
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def read_report(path: Path) -> dict[str, Any]:
    """A report of any run, that says what was measured.

    Raises:
        UsageError: it cannot be read, or does not say that.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {message_lines(error)[0]}") from None
    if not isinstance(report, dict) or "weights" not in report:
        raise UsageError(f"{str(path)!r} does not say which weights were measured: evaluate once more")
    if not isinstance(report.get("warnings", []), list):
        raise UsageError(f"{str(path)!r} is damaged: its warnings are a list")
    # A list of stages, since a damaged one may have no hash.
    if report.get("stage") not in list(STAGES) or "data" not in report or not set(COUNTS) & set(report):
        raise UsageError(f"{str(path)!r} is damaged: an evaluation has a stage, val or test, num_samples and data")
    return report


def verdicts_of(report_name: str) -> str | None:
    """The name of the table that belongs to a report; None for a language model's, which holds its texts itself."""
    if report_name.startswith("language_"):
        return None
    return report_name.replace("report", "verdicts").replace(".json", ".npz")


def read_verdicts(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table of verdicts, equally long.

    Raises:
        UsageError: it cannot be read, or is no such table.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
    except Exception as error:  # numpy and zipfile raise many kinds, depending on where the bytes stop making sense
        raise UsageError(f"{str(path)!r} cannot be read: {message_lines(error)[0]}") from None
    if "sample_id" not in columns or len({column.shape for column in columns.values()}) > 1:
        raise UsageError(f"{str(path)!r} is damaged: it needs columns of one length, one of them sample_id")
    return columns
