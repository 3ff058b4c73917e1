"""`gain_of`: the gain of an objective on a model, also in expectation over randomness of the model itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ascend import Measure, gradient_of
from .objective import Objective


def gain_of(model: nn.Module, objective: Objective, y: Tensor, *, num_eot_samples: int = 1) -> Measure:
    """The gain of points, in their precision whatever that of the logits, and whether they reach the objective.

    Args:
        model: images to logits `(N, C)`.
        objective: what the attacker wants, for all the samples of `y`.
        y: the true classes, int64 `(N,)`.
        num_eot_samples: forwards over which the gain is averaged, >= 1: more than one for a model that draws random
            numbers (expectation over transformation; Athalye et al., "Synthesizing robust adversarial examples",
            2018, equation 2). The objective then counts as reached where the mean logits reach it.
    """
    taken: tuple[Tensor | None, Objective, Tensor] = None, objective, y

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal taken
        if rows is not taken[0]:  # a climb asks for the same ones step after step
            taken = rows, objective.take(rows), y[rows]
        _, aimed, labels = taken
        if num_eot_samples == 1:
            logits = model(points)
            return _as_precise(aimed.gain(logits, labels), points), aimed.reached(logits.detach(), labels)
        gain, logits = _mean_over_draws(model, aimed, points, labels, num_eot_samples)
        return gain, aimed.reached(logits, labels)

    return measure


def _mean_over_draws(
    model: nn.Module, objective: Objective, points: Tensor, y: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """The means of the gain `(M,)` and of the logits `(M, C)` over so many draws.

    The gradient is taken draw by draw, so that no more than one graph is held in memory.
    """
    climbs = points.requires_grad and torch.is_grad_enabled()
    gains, all_logits, slope = [], [], torch.zeros_like(points)
    for _ in range(number):
        logits = model(points)
        gain = _as_precise(objective.gain(logits, y), points)
        if climbs:
            slope += gradient_of(gain, points) / number
        gains.append(gain.detach() if climbs else gain)
        all_logits.append(logits.detach())
    gain = torch.stack(gains).mean(0)
    if climbs:
        gain = gain + ((points - points.detach()) * slope).flatten(1).sum(1)  # which adds the gradient, and 0
    return gain, torch.stack(all_logits).mean(0)


def _as_precise(gain: Tensor, points: Tensor) -> Tensor:
    return gain.to(points.dtype) if points.is_floating_point() else gain  # those of tokens may be of any
