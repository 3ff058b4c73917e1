"""`weight_decay_groups`: the parameters that weight decay should shrink, and those that it should leave alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from touchstone.nets.weight_decay import spared_from_decay


def weight_decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Groups of the trained parameters for an optimizer: those it decays as it is told, and those without decay.

    Args:
        module: its parameters with `requires_grad`; each once, wherever it is shared.

    Returns:
        One or two groups: the first without options, the second with a `weight_decay` of 0: what belongs to a
        normalization, by the type of the module, and every bias (`spared_from_decay`).
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen = set()
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            (spared if spared_from_decay(part, name) else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
