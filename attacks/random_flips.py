"""`RandomFlips`: the control that every attack on tokens must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .core.attack import Attack
from .core.gain import gain_of
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .parts.flips import Flips, search_flips
from .threats.token_flips import TokenFlips


@dataclass(frozen=True, kw_only=True)
class RandomFlips(Attack):
    """`HotFlip` without gradients: flips one token after another, each the best of a few drawn at random.

    As there, a sample of which no text that was tried is better for the attacker stays as it is.

    Args:
        threat: how many tokens may change, and into what.
        objective: what the attacker wants.
        num_candidates: flips of each text that are verified by a forward, >= 1; 1 goes on from what was drawn.

    Raises:
        ValueError: `num_candidates` is below 1.
    """

    kind = "control"
    supports = (TokenFlips,)
    threat: Threat
    objective: Objective = Untargeted()
    num_candidates: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_candidates")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        threat = self.threat
        assert isinstance(threat, TokenFlips)
        free = threat.free(x)

        def propose(texts: Tensor, rows: Tensor, step: int) -> Flips:
            noise = rng.take(rows).fold(step).uniform(x.new_empty(len(rows), 2, self.num_candidates, dtype=torch.float))
            open_ = free[rows] & (texts == x[rows])
            num_open = open_.sum(1, keepdim=True)
            drawn = (noise[:, 0] * num_open).long().minimum((num_open - 1).clamp_min(0))
            places = open_.long().argsort(dim=1, descending=True, stable=True).gather(1, drawn)
            tokens = threat.another(texts.gather(1, places), noise[:, 1])
            return Flips(places, tokens, (num_open > 0).expand_as(places))

        return search_flips(gain_of(model, self.objective, y), x, propose, num_flips=threat.num_flips)
