"""`jittered`: pictures shifted by some pixels, another shift at each step, so that no grid is burnt in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.sample_rng import SampleRng


def jittered(pictures: Tensor, most: int, *, seed: int, step: int) -> Tensor:
    """Rolls `(N, C, H, W)` by up to `most` pixels along both axes, all pictures of a step by the same."""
    rng = SampleRng(seed, torch.tensor([0, 1])).fold(step)
    down, across = (rng.integers(2 * most + 1) - most).tolist()
    return torch.roll(pictures, (down, across), (2, 3))
