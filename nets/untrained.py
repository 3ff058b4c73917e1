"""`untrained`: the same net with random weights."""

from __future__ import annotations

import copy

from torch import nn


def untrained(net: nn.Module) -> nn.Module:
    """A net of the same architecture with the weights that it begins with, on the CPU, drawn from the global state.

    Args:
        net: it stays as it is. A method `untrained()` of its own makes the copy; else every module in a copy draws its
            weights anew by `reset_parameters`, as torch's layers do.

    Raises:
        ValueError: some weights are of a module that cannot draw them.

    Example:
        >>> beside = untrained(TorchvisionNet("resnet50"))  # as with weights=None
    """
    own = getattr(net, "untrained", None)
    if callable(own):
        return own()
    other = copy.deepcopy(net).cpu()
    drawn: set[int] = set()
    for module in other.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
            drawn |= {id(parameter) for parameter in module.parameters()}
    kept = [name for name, parameter in other.named_parameters() if id(parameter) not in drawn]
    if kept:
        raise ValueError(
            f"untrained({type(net).__name__}) must be a net whose modules draw their weights by reset_parameters(), or "
            f"that has a method untrained(); nothing draws {', '.join(kept[:3])}"
        )
    return other
