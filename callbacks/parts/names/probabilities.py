"""`are_shares` and `are_probabilities`: whether what a `predict_step` returned says how likely classes are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

TOLERANCE = 1e-2  # of a sum of many numbers in half precision


def are_shares(rows: Any) -> bool:
    """Whether this is a tensor `(N, classes)` in [0, 1], each class perhaps on its own; NaN is not."""
    if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
        return False
    return bool(((rows >= 0) & (rows <= 1)).all())


def are_probabilities(rows: Any) -> bool:
    """Whether these are shares of which each row sums to 1."""
    return are_shares(rows) and bool(((rows.float().sum(1) - 1).abs() <= TOLERANCE).all())


def described(rows: Any) -> str:
    """What it is that should have been probabilities, for a message."""
    if not isinstance(rows, Tensor):
        return f"a {type(rows).__name__}"
    kind = f"{str(rows.dtype).removeprefix('torch.')} {tuple(rows.shape)}"
    if rows.ndim != 2 or not rows.numel() or not rows.is_floating_point():
        return kind
    farthest = max(rows.float().sum(1).tolist(), key=lambda total: abs(total - 1))
    return f"{kind} from {float(rows.min()):.3g} to {float(rows.max()):.3g}, of which a row sums to {farthest:.3g}"
