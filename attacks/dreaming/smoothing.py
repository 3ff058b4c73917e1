"""`blur`: a Gaussian over pictures or their gradients, which takes the high frequencies out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(pictures: Tensor, sigma: float) -> Tensor:
    """Convolves each channel of `(N, C, H, W)` with a Gaussian of `sigma` pixels; the border is repeated outwards."""
    radius = math.ceil(3 * sigma)
    places = torch.arange(-radius, radius + 1, dtype=pictures.dtype, device=pictures.device)
    kernel = torch.softmax(-places.square() / (2 * sigma**2), 0)  # sums to 1
    channels = pictures.shape[1]
    wide = F.pad(pictures, (radius,) * 4, mode="replicate")
    down = F.conv2d(wide, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(down, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
