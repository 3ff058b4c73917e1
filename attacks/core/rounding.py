"""`rounding`: how much a margin may change by nothing but the rounding of a model's numbers."""

from __future__ import annotations

import torch
from torch import Tensor

_FEW = 4  # spacings of half precision: the layers before have rounded too
_SOME = 64  # the same of full precision, where a convolution's sums may cancel
_LOW_BITS = 0b1111  # of the eight in bfloat16


def rounding(logits: Tensor) -> Tensor:
    """The change of each sample's margin up to which it may be rounding, float `(N,)`.

    A model of half precision, or with an autocast in its forward, is known by logits that half precision holds exactly,
    whatever it returns them in. Those that take no more than four bits were not rounded but quantised, which hides from
    a gradient what it should see. Logits may be such numbers by chance, or take few bits: the mean of several points
    tells.

    Args:
        logits: `(N, C)`; infinite ones count for nothing.
    """
    rounded = torch.full_like(logits[:, 0], _SOME * torch.finfo(logits.dtype).eps)
    few_levels = ((logits.bfloat16().view(torch.int16) & _LOW_BITS) == 0).all(1)
    for half in (torch.float16, torch.bfloat16):
        held = (logits.to(half) == logits).all(1) & ~few_levels
        rounded = torch.where(held, _FEW * torch.finfo(half).eps, rounded)
    return rounded * logits.masked_fill(~logits.isfinite(), 0).abs().amax(1)
