"""`Surprise`: the attacker of a language model wants what follows to be unlikely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.objective import Objective


@dataclass(frozen=True)
class Surprise(Objective):
    """The attacker wants a language model to predict the text badly: it climbs the mean loss over a text, without end.

    For `evaluate_language`: logits `(N, T, V)`, and as `y` the tokens that follow, int64 `(N, T)`. All of them count
    here, where `evaluate_language` reports the mean over those that the attack left: flipped ones may have the rise.
    """

    of_texts = True

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return token_losses(logits, y).mean(1)

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)


def token_losses(logits: Tensor, y: Tensor) -> Tensor:
    """The loss of every token in nats, float `(N, T)`, of logits `(N, T, V)` and tokens int64 `(N, T)`."""
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)
