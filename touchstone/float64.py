"""`has_float64`: whether a device computes in double precision."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices."""


def has_float64(device: torch.device) -> bool:
    """Whether tensors of a device may be float64, which Apple's have not."""
    return device.type not in WITHOUT_FLOAT64
