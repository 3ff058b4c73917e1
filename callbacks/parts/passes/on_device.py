"""`on_device`: a net beside the trained one, brought to where that one is."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def on_device(module: Module, device: torch.device) -> Module:
    """The module itself, on a device, with weights that can have gradients.

    Lightning validates and tests in inference mode, and what is copied to another device in that mode can have none.
    """
    with torch.inference_mode(False):
        return module.to(device)
