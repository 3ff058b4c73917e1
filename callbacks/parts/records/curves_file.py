"""`curves.json` in a run folder: how accuracy and loss of a run change with what the attacker may do."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning.pytorch as pl

from touchstone.runs.logs import fit_may_lose
from touchstone.runs.whole_files import write_whole


@dataclass(frozen=True)
class Curves:
    """The curves of one run, each beginning with the samples before any attack (eps 0, 0 steps).

    Attributes:
        run: the end of its folder's path, such as `digits/version_1`.
        stage: `val` or `test`.
        attack: the attack, as Python prints it.
        threat: the kind of its threat, such as `Linf`.
        threat_eps: the eps of the curves against steps.
        num_samples: samples measured.
        num_classes: classes of the model.
        eps: radii, ascending.
        accuracy_at_eps: right before any attack and after the attack inside each eps up to this one, in [0, 1].
        steps: numbers of steps, ascending.
        accuracy_after_steps: the same for each number of steps up to this one.
        loss_after_steps: the mean cross-entropy of the samples that are right before any attack; empty where none is.
    """

    run: str
    stage: str
    attack: str
    threat: str
    threat_eps: float
    num_samples: int
    num_classes: int
    eps: list[float]
    accuracy_at_eps: list[float]
    steps: list[int]
    accuracy_after_steps: list[float]
    loss_after_steps: list[float]

    def by_name(self) -> dict[str, float]:
        """The figures after an attack, by names such as `eps_0.1`, `steps_20` and `loss_20`."""
        losses = self.loss_after_steps or [math.nan] * len(self.steps)
        curves = (
            ("eps", self.eps, self.accuracy_at_eps),
            ("steps", self.steps, self.accuracy_after_steps),
            ("loss", self.steps, losses),
        )
        return {
            f"{name}_{at:g}": value
            for name, places, values in curves
            for at, value in zip(places, values, strict=True)
            if at
        }

    def eps_at(self, share: float) -> float | None:
        """Where accuracy against eps passes a share, by straight lines between the radii; None where it does not."""
        points = list(zip(self.eps, self.accuracy_at_eps, strict=True))
        for (eps, above), (next_eps, below) in zip(points, points[1:], strict=False):
            if above >= share >= below and above > below:
                return eps + (next_eps - eps) * (above - share) / (above - below)
        return None

    def in_words(self, share: float) -> str:
        """Where accuracy against eps passes a share, or why it does not."""
        samples, eps = f"{share:.2%} of {self.num_samples} samples", self.eps_at(share)
        if eps is not None:
            return f"{samples} are right inside {self.threat} {eps:.4g}"
        if self.accuracy_at_eps[0] < share:
            return f"fewer than {samples} are right before any attack"
        return f"more than {samples} are right inside {self.threat} {self.eps[-1]:.4g}, the largest eps"


def write_curves(trainer: pl.Trainer, curves: Curves, folder: Path, loader_index: int) -> None:
    """Writes `curves.json` into a run folder; `curves_1.json` for a second data loader.

    Raises:
        OSError: it cannot be written; in a fit, which goes on, this is a warning, and an older one stays.
    """
    path = folder / (f"curves_{loader_index}.json" if loader_index else "curves.json")
    with fit_may_lose(trainer, path):
        write_whole(path, json.dumps(asdict(curves), indent=2) + "\n")


def read_curves(folder: str | Path, threat: str) -> Curves:
    """The curves in a run folder.

    Args:
        folder: the run folder.
        threat: the kind of threat that they must be of, to be drawn against one eps.

    Raises:
        ValueError: there are none, or they are of another kind of threat.
    """
    path = Path(folder) / "curves.json"
    try:
        curves = Curves(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(
            "RobustnessCurves(compare_with=...) must be folders of runs that have drawn curves; "
            f"{path} cannot be read: {why}"
        ) from error
    if curves.threat != threat:
        raise ValueError(
            f"RobustnessCurves(compare_with=...) must be runs attacked inside {threat} as this one, "
            f"got {curves.threat} in {path}: their eps are not the same"
        )
    return curves
