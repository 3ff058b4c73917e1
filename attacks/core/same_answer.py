"""Whether two answers of a model are the same one: up to a thousandth, of each logit or of the largest."""

from __future__ import annotations

import torch
from torch import Tensor

from .rounding import rounding

_SAME = 1e-3


def same_in_equal_batches(one: Tensor, other: Tensor) -> bool:
    """Whether a model gave the same answer twice, to batches of one shape.

    Both went through the same kernels, which round alike, so that each logit is held against its own size: one of
    -1e9, of a token that is never to be said, excuses no other. A logit near 0 is held against how far all of them lie
    apart, up to 1.

    Args:
        one: logits, `(N, ..., C)`.
        other: the same, of the other time.
    """
    apart = float(one.max() - one.min()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=_SAME, atol=_SAME * min(1.0, apart))


def same_in_other_batches(one: Tensor, other: Tensor) -> bool:
    """Whether a model gave the same answer twice, to the same samples in batches of other sizes.

    Their kernels may add in another order, and in coarser numbers than the logits have, so that a small logit is as
    far off as the largest one.

    Args:
        one: logits, `(N, C)`, N >= 1.
        other: the same, of the other time.
    """
    same = rounding(one).minimum(rounding(other)).clamp_min(_SAME * (1 + one.abs().max()))
    return bool((one - other).abs().amax(1).le(same).all())
