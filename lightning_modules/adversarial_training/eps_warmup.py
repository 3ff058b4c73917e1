"""`EpsWarmup`: an eps that grows from batch to batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import SampleRng

from .around import Around
from .strategy import Criterion, Learned, Strategy


class EpsWarmup(Around):
    """Lets another strategy learn inside a threat that grows in equal steps from eps / `num_batches` to eps.

    Steps given as a share of eps grow with it. At large eps a net may not begin to learn without (Pang et al., "Bag
    of tricks for adversarial training", 2021, section 3.1).

    Args:
        strategy: learns from an attack inside a threat, such as `PGDAT`.
        num_batches: training batches until eps is reached, >= 1.

    Raises:
        ValueError: `num_batches` is below 1, or `strategy` has no eps.
    """

    def __init__(self, strategy: Strategy, *, num_batches: int) -> None:
        super().__init__(strategy)
        if num_batches < 1:
            raise ValueError(f"EpsWarmup(num_batches=...) must be >= 1, got {num_batches}")
        strategy.scale_eps(1 / num_batches)
        self.num_batches, self._num_seen = num_batches, 0

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        if self._num_seen < self.num_batches:
            self._num_seen += 1
            self.strategy.scale_eps(self._num_seen / self.num_batches)
        return super().learn(model, x, y, criterion, rng)

    # Not a buffer: averages of weights average buffers too.

    def get_extra_state(self) -> Tensor:
        """The number of batches seen, up to `num_batches`."""
        return torch.tensor(self._num_seen)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes up what `get_extra_state` gave."""
        self._num_seen = int(state)
        self.strategy.scale_eps(max(self._num_seen, 1) / self.num_batches)
