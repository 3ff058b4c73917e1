"""`Report`: the verdicts of one evaluation, sample by sample, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        x_adv: by attack, what the judge measured, where it was asked to keep it; a sample that was wrong before the
            attack stands there unchanged.
    """

    attacks: dict[str, Attack]
    sample_id: Tensor
    label: Tensor
    clean_prediction: Tensor
    clean_correct: Tensor
    robust: dict[str, Tensor]
    success: dict[str, Tensor]
    cost: dict[str, Cost]
    x_adv: dict[str, Tensor]

    @property
    def worst_case(self) -> Tensor:
        """Right before any attack and after every attack: bool `(N,)`."""
        return torch.stack([self.clean_correct, *self.robust.values()]).all(0)

    @property
    def warnings(self) -> list[str]:
        """Signs that an accuracy after attack is higher than the robustness it stands for, in words."""
        robust = {name: int(verdict.sum()) for name, verdict in self.robust.items()}
        return signs_of_masking(self.attacks, robust, self.cost, len(self.sample_id))

    @staticmethod
    def join(reports: Sequence[Report]) -> Report:
        """One report of several with the same attacks, at least one; the samples one after another."""

        def rows(field: str) -> Tensor:
            return torch.cat([getattr(report, field) for report in reports])

        def rows_by_attack(field: str) -> dict[str, Tensor]:
            kept = [name for name in reports[0].attacks if all(name in getattr(r, field) for r in reports)]
            return {name: torch.cat([getattr(r, field)[name] for r in reports]) for name in kept}

        return Report(
            attacks=reports[0].attacks,
            sample_id=rows("sample_id"),
            label=rows("label"),
            clean_prediction=rows("clean_prediction"),
            clean_correct=rows("clean_correct"),
            robust=rows_by_attack("robust"),
            success=rows_by_attack("success"),
            cost={name: sum((r.cost[name] for r in reports), Cost()) for name in reports[0].attacks},
            x_adv=rows_by_attack("x_adv"),
        )
