"""`total_variation`: how much neighbouring pixels differ (Mahendran and Vedaldi, 2015, section 3, beta 2)."""

from __future__ import annotations

from torch import Tensor


def total_variation(pictures: Tensor) -> Tensor:
    """The sum of the squared differences of neighbours, `(N, C, H, W)` to `(N,)`."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).square().flatten(1).sum(1)
    across = (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).square().flatten(1).sum(1)
    return down + across
