"""`gain_of`: the gain of an objective on a model, also in expectation over randomness of the model itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ascend import Measure
from .objective import Objective


def gain_of(model: nn.Module, objective: Objective, y: Tensor, *, num_eot_samples: int = 1) -> Measure:
    """The gain of points, and whether they reach the objective.

    Args:
        model: images to logits `(N, C)`.
        objective: what the attacker wants, for all the samples of `y`.
        y: the true classes, int64 `(N,)`.
        num_eot_samples: forwards over which the gain is averaged, >= 1: more than one for a model that draws random
            numbers (expectation over transformation; Athalye et al., "Synthesizing robust adversarial examples",
            2018, equation 2). The objective then counts as reached where the mean logits reach it.
    """

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        aimed, labels = objective.take(rows), y[rows]
        logits = [model(points) for _ in range(num_eot_samples)]
        gains = [aimed.gain(each, labels) for each in logits]
        if num_eot_samples == 1:
            return gains[0], aimed.reached(logits[0].detach(), labels)
        return torch.stack(gains).mean(0), aimed.reached(torch.stack(logits).mean(0).detach(), labels)

    return measure
