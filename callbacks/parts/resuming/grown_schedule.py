"""`add_group`: parameters that an optimizer gets in the middle of a run, with the schedule of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""The options of a group that are learning rates; torch's schedulers keep the last three there."""
LISTS = ("base_lrs", "min_lrs", "max_lrs", "_last_lr")
"""Where schedulers keep one learning rate for each group."""


def add_group(
    optimizer: Optimizer,
    schedulers: Sequence[Any],
    parameters: list[nn.Parameter],
    share: float,
    changed: Mapping[str, Any],
) -> None:
    """Adds a group with the options of the first one, and a share of its learning rate, now and in every schedule.

    torch's schedulers know the groups that were there when they were made, and fail at others.

    Args:
        optimizer: changed in place.
        schedulers: all of them, those of this optimizer are changed in place.
        parameters: of the group.
        share: of the learning rates.
        changed: options that differ from the first group's, such as `weight_decay`.
    """
    first = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    scaled = {name: share * value if name in RATES else value for name, value in first.items()}
    optimizer.add_param_group({**scaled, **changed, "params": parameters})
    for scheduler in schedulers:
        if scheduler.optimizer is optimizer:
            _extend(scheduler, share)


def _extend(scheduler: Any, share: float) -> None:
    for part in getattr(scheduler, "_schedulers", ()):  # of one that joins several
        _extend(part, share)
    for name in LISTS:
        rates = getattr(scheduler, name, None)
        if isinstance(rates, list) and rates:
            rates.append(share * rates[0])
    if isinstance(getattr(scheduler, "lr_lambdas", None), list):
        scheduler.lr_lambdas.append(scheduler.lr_lambdas[0])
