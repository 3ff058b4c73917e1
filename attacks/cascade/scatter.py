"""`Scatter`: how far the ends of a sample's climbs lie apart, and so whether another one may reach the boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.per_sample import widest


class Scatter:
    """The ends of each sample's climbs, as shares of its first margin: -1 where it began, 0 at the boundary.

    Args:
        x: the samples, float `(N, ...)`.
    """

    def __init__(self, x: Tensor) -> None:
        # Their number, sum, and sum of squares.
        self._ends = torch.zeros(3, len(x), dtype=widest(x.device), device=x.device)

    def forget(self) -> None:
        """Begins anew, with climbs of another length."""
        self._ends.zero_()

    def see(self, rows: Tensor, share: Tensor) -> None:
        """Takes in where a climb of some samples, int64 `(M,)`, has ended, float `(M,)`."""
        share = share.to(self._ends)
        self._ends[:, rows] += torch.stack([torch.ones_like(share), share, share.square()])

    def may_reach(self, hope: float) -> Tensor:
        """For whom the boundary lies at most so many standard deviations from the mean end: bool `(N,)`."""
        number, total, squares = self._ends
        mean = total / number
        spread = (squares / number - mean.square()).clamp_min(0).sqrt()
        return (number >= 2) & (-mean <= hope * spread)
