"""`Report`: the verdicts of one evaluation, sample by sample, and what they cost."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..core.attack import Attack
from .masking import signs_of_masking
from .meter import Cost


@dataclass(frozen=True, eq=False)
class Report:
    """The verdicts of one evaluation. All tensors have one row per sample, in the order of the call.

    Attributes:
        attacks: the attacks by name.
        sample_id: int64 `(N,)`.
        label: the true class, int64 `(N,)`.
        clean_prediction: the class predicted before any attack, int64 `(N,)`.
        clean_correct: right before any attack, bool `(N,)`.
        robust: by attack, right before it and after it, bool `(N,)`.
        success: by attack, right before it and turned (targeted: into the target), bool `(N,)`.
        cost: by attack, the samples it passed through the model; the judge's own clean forward and re-measurement,
            one forward each, are not in it.
        margin_left: by attack, the margin of the true class after it as a share of the margin before, float `(N,)`:
            below 0 where it lost, NaN for a sample that was wrong before. Of a tie before, right only since its class
            comes first, nothing is left: 0, or as far below 0 as the margin after it.
        x_adv: by attack, what the judge measured, where it was asked to keep it; a sample that was wrong before the
            attack stands there unchanged.
        survives_8bit: by attack, turned away from its class by it and still so as a picture of 256 levels per
            channel, bool `(N,)`, where the judge was asked to look.
        judge_cost: what the judge itself passed through the model, its probes for gradient masking included.
        observed: signs of masking that the judge saw while it measured, in words.
    """

    attacks: dict[str, Attack]
    sample_id: Tensor
    label: Tensor
    clean_prediction: Tensor
    clean_correct: Tensor
    robust: dict[str, Tensor] = field(default_factory=dict)
    success: dict[str, Tensor] = field(default_factory=dict)
    cost: dict[str, Cost] = field(default_factory=dict)
    margin_left: dict[str, Tensor] = field(default_factory=dict)
    x_adv: dict[str, Tensor] = field(default_factory=dict)
    survives_8bit: dict[str, Tensor] = field(default_factory=dict)
    judge_cost: Cost = Cost()
    observed: list[str] = field(default_factory=list)

    @property
    def worst_case(self) -> Tensor:
        """Right before any attack and after every attack: bool `(N,)`."""
        return torch.stack([self.clean_correct, *self.robust.values()]).all(0)

    @property
    def warnings(self) -> list[str]:
        """Signs that an accuracy after attack is higher than the robustness it stands for, in words."""
        robust = {name: int(verdict.sum()) for name, verdict in self.robust.items()}
        return signs_of_masking(self.attacks, robust, self.cost, len(self.sample_id)) + self.observed

    def accuracy(self, name: str | None = None) -> float:
        """The share of samples that are right after an attack, or in the worst case, in [0, 1]; NaN for no samples.

        Args:
            name: an attack, `"clean"` for none, or `"worst_case"`; None means the latter.

        Raises:
            ValueError: there is no attack of this name.
        """
        verdicts = {**self.robust, "clean": self.clean_correct, "worst_case": self.worst_case}
        wanted = "worst_case" if name is None else name
        if wanted not in verdicts:
            raise ValueError(f"Report.accuracy({wanted!r}): there is {_nearest_first(wanted, verdicts)}")
        return _share(verdicts[wanted])

    def outlook(self, name: str) -> str:
        """How the verdicts of an attack might move with more effort, in words: how near the survivors came to falling.

        Args:
            name: an attack of the report.

        Raises:
            ValueError: there is no attack of this name.
        """
        if name not in self.robust:
            raise ValueError(f"Report.outlook({name!r}): there is {_nearest_first(name, self.robust)}")
        standing = self.margin_left[name][self.robust[name]]
        if not len(standing):
            return f"{name}: no sample stands"
        near = [int((standing < share).sum()) for share in (0.05, 0.2)]
        verdict = "more effort is likely to turn some" if near[0] else "more of the same is unlikely to turn any"
        return (
            f"{name}: of {len(standing)} samples that stand, {near[0]} have less than 5 % of their margin left, "
            f"{near[1]} less than 20 %: {verdict}"
        )

    def __str__(self) -> str:
        """A line for each attack: the share and number of samples that are right after it, and its cost."""
        width, num_samples = max(map(len, (*self.robust, "worst case"))), len(self.sample_id)
        if not num_samples:
            return "no samples"

        def line(name: str, verdict: Tensor, cost: str = "") -> str:
            return f"{name:{width}}  {_share(verdict):6.1%}  {int(verdict.sum())} of {num_samples}{cost}"

        spent = {n: f"  ({c.num_forwards} forwards, {c.num_backwards} backwards)" for n, c in self.cost.items()}
        lines = [line("clean", self.clean_correct), *(line(n, v, spent[n]) for n, v in self.robust.items())]
        return "\n".join([*lines, line("worst case", self.worst_case), *(f"warning: {w}" for w in self.warnings)])

    @staticmethod
    def join(reports: Sequence[Report]) -> Report:
        """One report of several, at least one; the samples one after another.

        Raises:
            ValueError: they are not of the same attacks.
        """
        names = [sorted(report.robust) for report in reports]
        if any(others != names[0] for others in names):
            raise ValueError(f"Report.join(...): the reports must be of the same attacks, got {names}")
        found = {each.name: _joined([getattr(report, each.name) for report in reports]) for each in fields(Report)}
        return Report(**found)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Report:
        """The report with every tensor changed, as all rows are by `Tensor.cpu`."""
        return Report(**{each.name: _mapped(getattr(self, each.name), change) for each in fields(Report)})


def _joined(values: Sequence[Any]) -> Any:
    """What several reports have in one place: rows one after another, costs added up, each sign once.

    Of an attack that not all of them have something of, there is nothing.
    """
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([*values])
    if isinstance(first, Cost):
        return sum(values, Cost())
    if isinstance(first, list):
        return list(dict.fromkeys(chain(*values)))
    if isinstance(first, dict):
        shared = [name for name in first if all(name in value for value in values)]
        return {name: _joined([value[name] for value in values]) for name in shared}
    if isinstance(first, Attack):
        return first
    raise TypeError(f"a field of Report must hold tensors, costs, signs or attacks, got {type(first).__name__}")


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(part, change) for name, part in value.items()}
    return change(value) if isinstance(value, Tensor) else value


def _share(verdict: Tensor) -> float:
    return float(verdict.cpu().double().mean())  # there, since not every device has float64


def _nearest_first(wrong: object, names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(difflib.get_close_matches(str(wrong), names, len(names) or 1, 0)) or "no attack"
