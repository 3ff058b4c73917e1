"""`has_float64`: whether a device computes in double precision."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = {"mps"}
"""The `type` of devices whose tensors cannot be float64."""


def has_float64(device: torch.device) -> bool:
    """Whether tensors of a device may be float64, which Apple's may not."""
    return device.type not in WITHOUT_FLOAT64
