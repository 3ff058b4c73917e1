"""`in_own_precision`: images of more digits than a net computes with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks.core.checks import computing_dtype


def in_own_precision(net: nn.Module, x: Tensor) -> Tensor:
    """Float64 images, as numpy makes them, in float32 unless the weights are float64; others as they are.

    So does `evaluate`. Half precisions are left to autocast and to `Trainer(precision=...)`.
    """
    return x.to(computing_dtype(net)) if x.dtype == torch.float64 else x
