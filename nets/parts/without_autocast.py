"""Computing in the dtype of the weights inside autocast: `autocast_off`, and `without_autocast` for a backward.

A backward by hand has its own, since it runs in the autocast of whoever calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def autocast_off(device: str) -> AbstractContextManager[Any]:
    """Inside, nothing computes in a lower precision; a device without autocast, as meta, is left as it is."""
    try:  # dynamo of torch 2.6 cannot follow torch.amp.is_autocast_available
        return torch.autocast(device, enabled=False)
    except RuntimeError:
        return nullcontext()


def without_autocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward that computes in the dtype of the weights also where it is called inside autocast."""

    @wraps(backward)
    def run(ctx: Any, *arriving: Tensor | None) -> Any:
        device = next((grad.device.type for grad in arriving if grad is not None), "cpu")  # of zeros, any will do
        with autocast_off(device):
            return backward(ctx, *arriving)

    return run
