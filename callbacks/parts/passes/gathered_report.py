"""`gathered_report`: one report of what all processes have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from touchstone.attacks import Attack, Cost, Report

from .processes import gather, order_of


def gathered_report(reports: Sequence[Report], suite: Mapping[str, Attack]) -> Report:
    """The report over the samples of all processes, in the order of their ids; the costs added up."""
    mine = replace(Report.join(reports), attacks={}, x_adv={}).mapped(Tensor.cpu) if reports else None
    parts = [part for part in gather(mine) if part is not None]
    if not parts:
        nothing, right = torch.empty(0), torch.empty(0, dtype=torch.bool)
        robust, success, cost = dict.fromkeys(suite, right), dict.fromkeys(suite, right), dict.fromkeys(suite, Cost())
        return Report(dict(suite), nothing, nothing, nothing, right, robust, success, cost)
    whole = Report.join(parts)
    order = order_of(whole.sample_id)
    return replace(whole.mapped(lambda rows: rows[order]), attacks=dict(suite))
