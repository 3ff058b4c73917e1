"""What the processes of a run know together. Every function but `order_of` is a collective: all processes call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from touchstone.attacks import Cost


def gather(mine: Any) -> list[Any]:
    """What each process has, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return parts


def gather_by_id(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all processes in the order of `values["_id"]`, on the CPU.

    Args:
        values: tensors `(N,)` by name, one of them `_id`; empty on a process without rows.

    Raises:
        ValueError: an id occurs twice.
    """
    parts = [part for part in gather({name: value.cpu() for name, value in values.items()}) if part]
    if not parts:
        return {}
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = order_of(whole["_id"])
    return {name: value[order] for name, value in whole.items()}


def order_of(ids: Tensor) -> Tensor:
    """The places of the rows of all processes in the order of their `ids`, int64 `(N,)`; int64 `(N,)` too.

    Raises:
        ValueError: an id occurs twice.
    """
    ids, order = ids.sort()
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise ValueError(
            f"two processes have taken the sample {int(twice[0])}: a DistributedSampler must be given the rank of its "
            "own process"
        )
    return order


def gather_costs(cost: dict[str, Cost]) -> dict[str, Cost]:
    """The costs of all processes added up."""
    parts = gather(cost)
    return {name: sum((part[name] for part in parts), Cost()) for name in cost}


def add_up(tensors: Sequence[Tensor]) -> None:
    """Adds to each tensor, in place, those of the other processes."""
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
