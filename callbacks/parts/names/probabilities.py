"""`are_probabilities`: whether what a `predict_step` returned can be written as shares of classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

TOLERANCE = 1e-2  # of a sum of many numbers in half precision


def are_probabilities(rows: Any) -> bool:
    """Whether this is a tensor `(N, classes)` whose rows lie in [0, 1] and sum to 1; NaN does not."""
    if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
        return False
    shares = rows.float()
    return bool((shares >= 0).all() and ((shares.sum(1) - 1).abs() <= TOLERANCE).all())


def described(rows: Any) -> str:
    """What it is that should have been probabilities, for a message."""
    if not isinstance(rows, Tensor):
        return f"a {type(rows).__name__}"
    kind = f"{str(rows.dtype).removeprefix('torch.')} {tuple(rows.shape)}"
    if rows.ndim != 2 or not rows.numel() or not rows.is_floating_point():
        return kind
    farthest = max(rows.float().sum(1).tolist(), key=lambda total: abs(total - 1))
    return f"{kind} from {float(rows.min()):.3g} to {float(rows.max()):.3g}, of which a row sums to {farthest:.3g}"
