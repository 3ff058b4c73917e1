"""The files of an evaluation in the run folder: `report.json` for reading, `verdicts.npz` for measuring again."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from touchstone.attacks import Report
from touchstone.runs.logs import fit_may_lose
from touchstone.runs.whole_files import write_together

STAGES = {"val": "validation", "test": "test"}
"""What a report is of, by its name there, in words."""


def interval(num_right: int, num_samples: int) -> list[float]:
    """The 95 % confidence interval of a share (Wilson's score interval)."""
    from scipy.stats import binomtest

    if num_samples == 0:
        return [0.0, 1.0]
    found = binomtest(num_right, num_samples).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def summary(report: Report, stage: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What `report.json` holds: shares in [0, 1], seconds, counts of samples."""
    num_samples = len(report.sample_id)

    def share(flags: torch.Tensor) -> float:
        return float(flags.double().mean()) if len(flags) else 0.0

    attacks = {
        name: {
            "threat": repr(attack.threat),
            "robust_accuracy": share(report.robust[name]),
            "ci95": interval(int(report.robust[name].sum()), num_samples),
            "success": attack_success(report, name),
            "num_forwards": report.cost[name].num_forwards,
            "num_backwards": report.cost[name].num_backwards,
            "seconds": report.cost[name].seconds,
        }
        for name, attack in report.attacks.items()
    }
    per_class = {}
    for label in report.label.unique().tolist():
        rows = report.label == label
        per_class[str(label)] = {
            "num_samples": int(rows.sum()),
            "clean_accuracy": share(report.clean_correct[rows]),
            "worst_case": share(report.worst_case[rows]),
            "robust_accuracy": {name: share(verdict[rows]) for name, verdict in report.robust.items()},
        }
    return {
        "stage": stage,
        "num_samples": num_samples,
        "clean_accuracy": share(report.clean_correct),
        "clean_ci95": interval(int(report.clean_correct.sum()), num_samples),
        "worst_case": share(report.worst_case),
        "worst_case_ci95": interval(int(report.worst_case.sum()), num_samples),
        "attacks": attacks,
        "per_class": per_class,
        "warnings": report.warnings,
        **origin,
    }


def attack_success(report: Report, name: str) -> float:
    """The share of the samples that were right before and that the attack turned (targeted: into the target)."""
    return int(report.success[name].sum()) / max(1, int(report.clean_correct.sum()))


class ReportNumbers:
    """The numbers of a pass's reports: 0 for the first loader that has samples, for each other one its own."""

    def __init__(self) -> None:
        self._first: int | None = None

    def of(self, loader_index: int) -> int:
        """The number of a loader that has samples; asked in the order of the loaders."""
        self._first = loader_index if self._first is None else self._first
        return 0 if loader_index == self._first else loader_index


def write_report(trainer: pl.Trainer, report: Report, figures: Mapping[str, Any], folder: Path, number: int) -> None:
    """Writes `report.json`, of the figures of its `summary`, and `verdicts.npz` into `folder`, as `write_numbered`."""
    columns: dict[str, Any] = {
        "sample_id": report.sample_id.cpu().numpy(),
        "label": report.label.cpu().numpy(),
        "clean_prediction": report.clean_prediction.cpu().numpy(),
        **{f"robust_{name}": verdict.cpu().numpy() for name, verdict in report.robust.items()},
    }
    file = io.BytesIO()
    np.savez_compressed(file, **columns)  # before 2.2, numpy would take an allow_pickle for one more column
    contents: dict[Path, str | bytes] = {
        folder / "verdicts.npz": file.getvalue(),
        folder / "report.json": as_json(figures),
    }
    write_numbered(trainer, contents, number)


def as_json(figures: Mapping[str, Any]) -> str:
    """A report as it lies in a file."""
    return json.dumps(figures, indent=2) + "\n"


def write_numbered(trainer: pl.Trainer, contents: Mapping[Path, str | bytes], number: int) -> None:
    """Writes the files of one report: of number 1, of a second loader, `report.json` becomes `report_1.json`.

    Those of number 0 come first, and take away what an earlier evaluation left, of more loaders perhaps.

    Raises:
        OSError: they cannot be written; in a fit, which goes on, this is a warning, and the older ones stay.
    """
    suffix = f"_{number}" if number else ""
    numbered = {path.with_stem(f"{path.stem}{suffix}"): content for path, content in contents.items()}
    with fit_may_lose(trainer, *numbered):
        write_together(numbered)
        if number == 0:
            for path in contents:
                for old in path.parent.glob(f"{path.stem}_[0-9]*{path.suffix}"):
                    old.unlink()
