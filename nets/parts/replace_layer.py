"""`replace_layer`: another module in the place of one of a net's."""

from __future__ import annotations

from torch import nn


def replace_layer(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a module where `net.get_submodule(name)` was; torch has this from 2.5 on, as `set_submodule`."""
    above, _, last = name.rpartition(".")
    setattr(net.get_submodule(above), last, layer)
