"""`grey_picture`: what a probe tries its options on before the first step of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .samples import Samples, images_and_labels


def grey_picture(batch: Any, keys: Sequence[str] | None) -> Samples | None:
    """One picture, `(1, C, H, W)`, of the shape of those in a training batch; None where it holds none.

    The pixels are not taken from the batch, since augmentations may have moved them out of [0, 1].
    """
    try:
        x, _ = images_and_labels(batch, keys)
    except ValueError:  # a batch that is only for training
        return None
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or not len(x):
        return None
    nothing = torch.zeros(1, dtype=torch.int64, device=x.device)
    return Samples(torch.full_like(x[:1], 0.5), nothing, nothing)
