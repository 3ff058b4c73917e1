"""`Around`: a strategy that changes how another one learns."""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.attacks import SampleRng
from touchstone.options import check_kind

from .parts.check_learned import check_learned
from .strategy import Criterion, Learned, Strategy


class Around(Strategy):
    """Passes everything on to another strategy; a subclass changes a part of it."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        check_kind(f"{type(self).__name__}(strategy=...)", strategy, Strategy)
        self.strategy = strategy
        self.num_repeats, self.learns_from_attacks = strategy.num_repeats, strategy.learns_from_attacks

    def samples(self, x: Tensor, y: Tensor, repeat: int) -> tuple[Tensor, Tensor]:
        return self.strategy.samples(x, y, repeat)

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned | None:
        learned = self.strategy.learn(model, x, y, criterion, rng)
        check_learned(self.strategy, learned, len(x))
        return learned

    def after_backward(self, model: nn.Module) -> None:
        self.strategy.after_backward(model)

    def restore_weights(self) -> None:
        self.strategy.restore_weights()

    def scale_eps(self, share: float) -> None:
        self.strategy.scale_eps(share)

    def fall_back(self) -> bool:
        return self.strategy.fall_back()
