"""`in_turn`: several tries one after another, each on the samples that still stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .ascend import Measure

Try = Callable[[Tensor], Tensor]
"""`points = attempt(rows)`: rows of the whole batch, int64 `(M,)`, to points `(M, ...)`."""


def in_turn(tries: Sequence[Try], measure: Measure, x: Tensor) -> Tensor:
    """Makes one try after another: a sample that has fallen is not tried again.

    Args:
        tries: what is tried, in order, at least one; of a single one the points come back unmeasured.
        measure: the gain of points, and whether the goal is reached (`gain_of`); one forward for each try.
        x: the unchanged samples, `(N, ...)`.

    Returns:
        Of each sample the point that reached the goal, or else the one with the largest gain, `(N, ...)`.
    """
    rows = torch.arange(len(x), device=x.device)  # the samples that have not fallen
    if len(tries) == 1:
        return tries[0](rows)
    best, best_gain = x.clone(), torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    for attempt in tries:
        found = attempt(rows)
        with torch.no_grad():
            gain, reached = measure(found, rows)
        better = reached | (gain > best_gain[rows])
        best[rows[better]], best_gain[rows[better]] = found[better], gain[better]
        rows = rows[~reached]
        if not len(rows):
            break
    return best
