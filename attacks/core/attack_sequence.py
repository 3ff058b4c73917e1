"""`attack_in_sequence`: several attacks one after another, as a rule each on the samples that still stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .ascend import Measure
from .attack import Attack
from .per_sample import widest
from .sample_rng import SampleRng
from .threat import Threat


def attack_in_sequence(
    attacks: Sequence[Attack],
    measure: Measure,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rng: SampleRng,
    *,
    nearest_in: Threat | None = None,
) -> Tensor:
    """Runs one attack after another, or one of them several times.

    A sample that has fallen is not attacked again, unless `nearest_in` asks for the nearest point. The first attack
    sees the noise that it would see alone, so that what it turns alone is turned here too.

    Args:
        attacks: what is run, in order, at least one; of a single one the points come back unmeasured.
        measure: the gain of points, and whether the goal is reached (`gain_of`); one forward for each attack.
        model: images to logits `(N, C)`.
        x: the unchanged samples, `(N, ...)`.
        y: the true classes, int64 `(N,)`.
        rng: noise per sample, other for each attack.
        nearest_in: where a nearer point is of use after one has reached the goal, the threat whose distance counts:
            every attack is then run on every sample.

    Returns:
        Of each sample the point that reached the goal, and of several the nearest; where none did, the one with the
        largest gain, `(N, ...)`.
    """
    if len(attacks) == 1:
        return attacks[0].perturb(model, x, y, rng)
    best, best_gain = x.clone(), torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    best_size = torch.full_like(best_gain, torch.inf, dtype=widest(x.device))  # of those that reached the goal
    rows = torch.arange(len(x), device=x.device)  # those that have not fallen, all with `nearest_in`
    for number, attack in enumerate(attacks):
        noise = rng.take(rows).fold(number) if number else rng
        found = attack.take(rows).perturb(model, x[rows], y[rows], noise)
        with torch.no_grad():
            gain, reached = measure(found, rows)
        size = torch.zeros_like(best_size[rows]) if nearest_in is None else nearest_in.distance(found, x).to(best_size)
        size = torch.where(reached, size, torch.inf)
        better = (size < best_size[rows]) | (best_size[rows].isinf() & (gain > best_gain[rows]))
        best[rows[better]], best_gain[rows[better]] = found[better], gain[better]
        best_size[rows] = torch.minimum(size, best_size[rows])
        if nearest_in is None:
            rows = rows[~reached]
        if not len(rows):
            break
    return best
