"""`octave_sizes`: the sizes at which a dream is dreamt, from coarse to fine (Mordvintsev et al., "DeepDream", 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SMALLEST = 8  # pixels along an axis


def octave_sizes(size: tuple[int, int], num_octaves: int, scale: float) -> list[tuple[int, int]]:
    """Heights and widths, each `scale` times the one before, the last of them `size`; none below the smallest."""
    sizes: list[tuple[int, int]] = []
    least = (min(SMALLEST, size[0]), min(SMALLEST, size[1]))
    for octave in range(num_octaves):
        height, width = (max(small, round(n / scale**octave)) for n, small in zip(size, least, strict=True))
        sizes.append((height, width))
        if sizes[-1] == least:  # however many octaves are wanted
            break
    return list(dict.fromkeys(reversed(sizes)))


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures `(N, C, H, W)` at another height and width."""
    if tuple(pictures.shape[2:]) == size:
        return pictures
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False, antialias=True)
