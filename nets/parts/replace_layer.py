"""`replace_layer`: another module in the place of one of a net's, and `like`: one of other size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def replace_layer(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a module where `net.get_submodule(name)` was; torch has this from 2.5 on, as `set_submodule`."""
    above, _, last = name.rpartition(".")
    setattr(net.get_submodule(above), last, layer)


def like(layer: nn.Linear | nn.Conv2d, changed: Mapping[str, Any]) -> nn.Module:
    """A linear layer or convolution as this one, with random weights of its dtype and on its device."""
    names: tuple[str, ...] = ("in_features", "out_features")
    if isinstance(layer, nn.Conv2d):
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        names += ("padding_mode",)
    given = {name: getattr(layer, name) for name in names}
    return type(layer)(**{**given, **changed}, bias=layer.bias is not None).to(layer.weight)
