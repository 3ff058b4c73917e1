"""`unexplained`: how much of a gain's change its gradient does not say.

Where a model hides a part of its gradient, by `detach` or by a backward of its own, every gradient agrees with the next
one and leads upwards, and yet says nothing of most changes. So the gain is compared with what its gradient says of a
step in a direction that it has not chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def unexplained(change: Tensor, slope: Tensor, move: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """The part of the changes of each sample's gain that its gradient does not say, `(N,)`: 0 on a linear model.

    Args:
        change: of the gain, along each of K moves, float `(K, N)`.
        slope: the gradient, at the beginning of the moves or on average along them, `(N, ...)`.
        move: from the beginning to the end, `(K, N, ...)`.
        rounding: the part of a change that is taken for rounding (`rounding`), >= 0, float `(N,)`.
    """
    said = (slope * move).flatten(2).sum(2)
    most = torch.maximum(change.abs(), said.abs()).mean(0)
    return ((change - said).abs() - rounding).clamp_min(0).mean(0) / most.clamp_min(_TINY)
