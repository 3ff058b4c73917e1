"""`gathered_report`: one report of what all processes have measured."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from touchstone.attacks import Attack, Cost, Report

from .processes import gather, gather_by_id, gather_costs

NOT_GATHERED = ("x_adv",)  # which is large, and dropped before
EMPTY = {"clean_correct": torch.empty(0, dtype=torch.bool)}


def gathered_report(reports: list[Report], suite: dict[str, Attack]) -> Report:
    """The report over the samples of all processes, in the order of their ids; the costs added up."""
    mine = Report.join(reports) if reports else None
    rows: dict[str, Tensor] = {}
    for field in dataclasses.fields(Report) if mine is not None else ():
        value = getattr(mine, field.name)
        if isinstance(value, Tensor):
            rows["_id" if field.name == "sample_id" else field.name] = value
        elif isinstance(value, dict) and field.name not in NOT_GATHERED:
            rows |= {f"{field.name}/{name}": item for name, item in value.items() if isinstance(item, Tensor)}
    rows = gather_by_id(rows)

    def by_attack(field: str) -> dict[str, Tensor]:
        return {name: rows[f"{field}/{name}"] for name in suite if f"{field}/{name}" in rows}

    def of_all(field: str) -> Tensor:
        return rows.get(field, EMPTY.get(field, torch.empty(0)))

    nothing = {name: Cost() for name in suite}
    return Report(
        attacks=dict(suite),
        sample_id=of_all("_id"),
        label=of_all("label"),
        clean_prediction=of_all("clean_prediction"),
        clean_correct=of_all("clean_correct"),
        robust={name: rows.get(f"robust/{name}", EMPTY["clean_correct"]) for name in suite},
        success={name: rows.get(f"success/{name}", EMPTY["clean_correct"]) for name in suite},
        margin_left=by_attack("margin_left"),
        survives_8bit=by_attack("survives_8bit"),
        cost=gather_costs(nothing if mine is None else mine.cost),
        judge_cost=sum(gather(Cost() if mine is None else mine.judge_cost), Cost()),
        observed=list(dict.fromkeys(sign for signs in gather([] if mine is None else mine.observed) for sign in signs)),
    )
