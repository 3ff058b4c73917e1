"""`probed`: a report with what short attacks on some of its samples say of gradient masking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.checks import as_computed, as_labels, module_of
from ..core.frozen_eval import seed_random_state
from ..core.sample_rng import SampleRng
from .diagnosis import NUM_LOOKED_AT, Diagnosis
from .forwards import Forwards
from .halving import Halving
from .judging import judging
from .meter import Cost
from .report import Report


def probed(
    report: Report,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    sample_ids: Tensor,
    seed: int,
    halving: Halving,
) -> Report:
    """What `evaluate(probe_masking=True)` looks for, on some samples of a report, added to it; its ids ascend."""
    model = module_of(model)
    with judging(model, x.device):
        x, y, ids = as_computed(x, model), as_labels(y), sample_ids.to(x.device).clone()
        rows = torch.searchsorted(report.sample_id, ids.to(report.sample_id.device))
        look, rng = Forwards(model, halving), SampleRng(seed, ids)
        seed_random_state(seed, x.device)
        first = slice(NUM_LOOKED_AT)
        logits = look(x[first], ids[first], "before any attack")  # what it takes the others for is in the report
        prediction = report.clean_prediction[rows].to(x.device)
        diagnosis = Diagnosis(model, x, y, prediction=prediction, logits=logits, rng=rng, look=look)
        signs = diagnosis.of_the_model([])
        robust = {name: verdicts[rows].to(x.device) for name, verdicts in report.robust.items()}
        signs += diagnosis.of_the_attacks(attacks, robust)
    return replace(
        report,
        observed=list(dict.fromkeys([*report.observed, *signs])),
        judge_cost=report.judge_cost + Cost(look.num_forwards) + diagnosis.cost,
    )
