"""`gathered_report`: one report of what all processes have measured."""

from __future__ import annotations

import torch
from torch import Tensor

from touchstone.attacks import Attack, Cost, Report

from .processes import gather, gather_by_id, gather_costs


def gathered_report(reports: list[Report], suite: dict[str, Attack]) -> Report:
    """The report over the samples of all processes, in the order of their ids; the costs added up."""
    rows: dict[str, Tensor] = {}
    cost, observed = {name: Cost() for name in suite}, list[str]()
    if reports:
        joined = Report.join(reports)
        cost, observed = joined.cost, joined.observed
        rows = {
            "_id": joined.sample_id,
            "label": joined.label,
            "prediction": joined.clean_prediction,
            "correct": joined.clean_correct,
            **{f"robust/{name}": joined.robust[name] for name in suite},
            **{f"success/{name}": joined.success[name] for name in suite},
        }
    rows = gather_by_id(rows)
    return Report(
        attacks=dict(suite),
        sample_id=rows.get("_id", torch.empty(0)),
        label=rows.get("label", torch.empty(0)),
        clean_prediction=rows.get("prediction", torch.empty(0)),
        clean_correct=rows.get("correct", torch.empty(0, dtype=torch.bool)),
        robust={name: rows.get(f"robust/{name}", torch.empty(0)) for name in suite},
        success={name: rows.get(f"success/{name}", torch.empty(0)) for name in suite},
        cost=gather_costs(cost),
        observed=list(dict.fromkeys(sign for signs in gather(observed) for sign in signs)),
    )
