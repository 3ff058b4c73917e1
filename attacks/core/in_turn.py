"""`in_turn`: several attacks one after another, each on the samples that still stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .ascend import Measure
from .attack import Attack
from .sample_rng import SampleRng


def in_turn(
    attacks: Sequence[Attack], measure: Measure, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng
) -> Tensor:
    """Runs one attack after another (or one of them several times): a sample that has fallen is not attacked again.

    The first attack sees the noise that it would see alone, so that what it turns alone is turned here too.

    Args:
        attacks: what is run, in order, at least one; of a single one the points come back unmeasured.
        measure: the gain of points, and whether the goal is reached (`gain_of`); one forward for each attack.
        model: images to logits `(N, C)`.
        x: the unchanged samples, `(N, ...)`.
        y: the true classes, int64 `(N,)`.
        rng: noise per sample, other for each attack.

    Returns:
        Of each sample the point that reached the goal, or else the one with the largest gain, `(N, ...)`.
    """
    if len(attacks) == 1:
        return attacks[0].perturb(model, x, y, rng)
    best, best_gain = x.clone(), torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    rows = torch.arange(len(x), device=x.device)  # the samples that have not fallen
    for number, attack in enumerate(attacks):
        noise = rng.take(rows).fold(number) if number else rng
        found = attack.take(rows).perturb(model, x[rows], y[rows], noise)
        with torch.no_grad():
            gain, reached = measure(found, rows)
        better = reached | (gain > best_gain[rows])
        best[rows[better]], best_gain[rows[better]] = found[better], gain[better]
        rows = rows[~reached]
        if not len(rows):
            break
    return best
