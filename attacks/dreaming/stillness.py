"""`why_still`: what keeps pictures as they began, in words."""

from __future__ import annotations

from torch import Tensor

from .canvas import Canvas


def why_still(gain: Tensor, gradient: Tensor, pictures: Tensor, canvas: Canvas) -> str:
    """The reasons why pictures have not moved on a canvas, each with the number of those that it holds for."""
    direction = canvas.direction(gradient)
    is_broken = ~gain.isfinite()
    is_flat = ~is_broken & (direction == 0).flatten(1).all(1)
    moved = canvas.project(pictures + direction.sign(), pictures)  # as far as any step of use
    is_kept_in = ~(is_broken | is_flat) & (moved == pictures).flatten(1).all(1)
    reasons = {
        "the response to them is NaN or infinite": is_broken,
        "no gradient comes from there: another seed, or other pictures to begin from, may have one": is_flat,
        "no step along their gradient leads anywhere inside [0, 1]: begin from pictures that are less "
        "saturated": is_kept_in,
        "the steps are too small to change a pixel: take a larger step_size": ~(is_broken | is_flat | is_kept_in),
    }
    found = {reason: int(where.sum()) for reason, where in reasons.items()}
    return "; ".join(f"of {number}, {reason}" for reason, number in found.items() if number)
