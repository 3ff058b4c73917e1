"""`EpsWarmup`: an eps that grows from batch to batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import SampleRng
from touchstone.options import check_counts

from .around import Around
from .parts.remembering import Remembering
from .strategy import Criterion, Learned, Strategy


class EpsWarmup(Remembering, Around):
    """Lets another strategy learn inside a threat that grows in equal steps from eps / `num_batches` to eps.

    Steps given as a share of eps grow with it. At large eps a net may not begin to learn without (Pang et al., "Bag
    of tricks for adversarial training", 2021, section 3.1).

    Args:
        strategy: learns from an attack inside a threat, such as `PGDAT`.
        num_batches: training batches until eps is reached, >= 1.

    Raises:
        ValueError: `num_batches` is below 1, or `strategy` has no eps, or one that counts, as that of `L0` and
            `TokenFlips`.
    """

    always = frozenset({"num_seen"})

    def __init__(self, strategy: Strategy, *, num_batches: int) -> None:
        super().__init__(strategy)
        check_counts(self, num_batches=num_batches)
        strategy.scale_eps(1 / num_batches)
        self.num_batches = num_batches
        self.memory = {"num_seen": torch.tensor(0)}

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned | None:
        num_seen = int(self.memory["num_seen"])
        if num_seen < self.num_batches:
            self.memory = {"num_seen": torch.tensor(num_seen + 1)}
            self.strategy.scale_eps((num_seen + 1) / self.num_batches)
        return super().learn(model, x, y, criterion, rng)

    def remember(self) -> None:
        self.strategy.scale_eps(max(int(self.memory["num_seen"]), 1) / self.num_batches)
