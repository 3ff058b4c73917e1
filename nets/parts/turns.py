"""`turns`: the sines and cosines that tell positions apart.

Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from touchstone.float64 import has_float64

BASE = 10_000.0  # sets the slowest turn


def turns(positions: Tensor, num_pairs: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of `position * BASE^(-i / num_pairs)`, both `(T, num_pairs)`, in dtype and place as `like`.

    Angles are float64, on the CPU where a device has none: in float32 those of far positions are off.
    """
    device = like.device if has_float64(like.device) else torch.device("cpu")
    exponents = torch.arange(num_pairs, device=device, dtype=torch.float64) / num_pairs
    angles = positions.to(device, torch.float64)[:, None] * BASE**-exponents
    return angles.cos().to(like), angles.sin().to(like)
