"""`Trial`: the judge of images at work: one batch before any attack, and after one attack after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.checks import check_labels, check_not_probabilities
from ..core.frozen_eval import seed_random_state
from ..core.sample_rng import SampleRng
from ..objectives.losses import Margin
from .attack_runner import AttackRunner
from .diagnosis import Diagnosis
from .forwards import Forwards
from .halving import Halving
from .meter import Cost
from .preparing import check_disjoint, prepare_attacks
from .report import Report
from .running import ask_for_no_gradient, naming
from .untouched import Untouched


class Trial:
    """Measures a batch before any attack, in the judge's context (`evaluate`).

    Raises:
        ValueError: the labels or the logits are not what they must be.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        attacks: Mapping[str, Attack],
        *,
        seed: int,
        halving: Halving,
    ) -> None:
        self._x, self._attacks, self._seed = x, dict(attacks), seed
        self._learning: dict[str, Cost] = {}
        self._look, untouched = Forwards(model, halving), Untouched(model)
        seed_random_state(seed, x.device)
        self._logits = logits = self._look(x, ids, "before any attack")
        if len(x):
            check_not_probabilities(logits, without_gradients=ask_for_no_gradient(attacks))
            check_labels(y, logits.shape[1], ids)
        prediction = logits.argmax(1)
        self._report = Report(dict(attacks), ids, y, prediction, prediction == y)
        self._runner = AttackRunner(model, SampleRng(seed, ids), self._look, halving, untouched)
        self._diagnosis = Diagnosis(
            model, x, y, prediction=prediction, logits=logits, rng=self._runner.rng, look=self._look
        )

    def diagnose_the_model(self, *, look_again: bool) -> None:
        """Enters what the model itself shows into the report; `look_again` as in `Diagnosis.of_the_model`."""
        changed = self._runner.untouched.ignore_changes()
        self._report.observed.extend(self._diagnosis.of_the_model(changed, look_again=look_again))

    def prepare(self, samples: tuple[Tensor, Tensor] | None) -> None:
        """Lets attacks learn that need it; what that costs is in their own."""
        runner = self._runner
        self._attacks, self._learning = prepare_attacks(
            self._attacks, runner.model, samples, seed=self._seed, untouched=runner.untouched
        )
        if samples is not None and self._learning:
            check_disjoint(self._x, self._report.sample_id, samples[0])
        self._report.attacks.update(self._attacks)

    def attack(self, name: str, *, keep: bool, round_too: bool) -> None:
        """Attacks what is right before, and enters verdicts and cost into the report.

        Args:
            name: of the attack.
            keep: whether the report keeps what became of the samples.
            round_too: whether it says which samples that were turned are wrong also as a picture of 256 levels.
        """
        report, attack, logits = self._report, self._attacks[name], self._logits
        if len(self._x):
            naming(name, attack.check_classes, logits.shape[1])
        robust, y = report.clean_correct.clone(), report.label
        success, left = torch.zeros_like(robust), torch.full_like(robust, torch.nan, dtype=logits.dtype)

        def aim(part: Attack, rows: Tensor) -> Attack:
            clean_logits = partial(logits.__getitem__, rows)
            return part.with_objective(part.objective.aim(clean_logits, y[rows], self._runner.rng.take(rows)))

        def measure(part: Attack, rows: Tensor, x_adv: Tensor, after: Tensor) -> None:
            robust[rows] = naming(name, part.objective.correct, after, y[rows])
            success[rows] = naming(name, part.objective.reached, after, y[rows])
            before, now = Margin()(logits[rows], y[rows]), Margin()(after, y[rows])
            # A tie has no margin to take a share of: nothing is left of it.
            left[rows] = torch.where(before == 0, 0 - now.clamp_min(0), now / before)

        rows = robust.nonzero()[:, 0]
        x_adv, cost = self._runner.run(name, attack, self._x, y, rows=rows, measure=measure, aim=aim)
        report.margin_left[name] = left
        report.robust[name], report.success[name] = robust, success
        report.cost[name] = cost + self._learning.get(name, Cost())
        if keep:
            report.x_adv[name] = x_adv
        if round_too:
            report.survives_8bit[name] = self._survive_rounding(name, x_adv)

    def _survive_rounding(self, name: str, x_adv: Tensor) -> Tensor:
        report = self._report
        turned = (report.clean_correct & ~report.robust[name]).nonzero()[:, 0]
        survives = torch.zeros_like(report.clean_correct)
        where = f"after attack {name!r}, rounded to 8 bits"
        after = self._look((x_adv[turned] * 255).round() / 255, report.sample_id[turned], where)
        survives[turned] = ~self._attacks[name].objective.correct(after, report.label[turned])
        return survives

    def report(self, *, probe_masking: bool) -> Report:
        """Everything that was measured; `probe_masking` looks for signs of masking by short attacks before."""
        if probe_masking:
            self._report.observed.extend(self._diagnosis.of_the_attacks(self._attacks, self._report.robust))
        return replace(self._report, judge_cost=Cost(self._look.num_forwards) + self._diagnosis.cost)
