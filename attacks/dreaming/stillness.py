"""`why_still`: what keeps pictures as they began, in words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def why_still(response: Callable[[Tensor], Tensor], pictures: Tensor) -> str:
    """The reasons, each with the number of pictures that it holds for.

    Args:
        response: pictures to what is climbed, float `(N,)`.
        pictures: that have not moved, `(N, C, H, W)`.
    """
    points = pictures.detach().clone().requires_grad_()
    with torch.enable_grad():
        gain = response(points)
    (gradient,) = torch.autograd.grad(gain.sum(), points)
    is_broken = ~gain.detach().isfinite()
    is_flat = ~is_broken & (gradient.nan_to_num(nan=0.0) == 0).flatten(1).all(1)
    reasons = {
        "the response to them is NaN or infinite": is_broken,
        "no gradient comes from there: another seed, or other pictures to begin from, may have one": is_flat,
        "no step along their gradient leads anywhere inside [0, 1]: begin from pictures that are less saturated": ~(
            is_broken | is_flat
        ),
    }
    found = {reason: int(where.sum()) for reason, where in reasons.items()}
    return "; ".join(f"of {number}, {reason}" for reason, number in found.items() if number)
