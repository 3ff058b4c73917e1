"""`Mixed`: learning from the images as they are and as another strategy changes them, both at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from touchstone.attacks import SampleRng
from touchstone.options import check_between

from .around import Around
from .parts.check_learned import check_learned
from .parts.recomputed import recomputed
from .strategy import Criterion, Learned, Strategy


class Mixed(Around):
    """Minimises `clean_share * criterion(f(x), y) + (1 - clean_share) * the other strategy's loss`.

    Source: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", 2015, section 6, with their
    alpha as `clean_share`.

    The images as they are make a pass of their own, in the modes of training and before the other strategy's: BatchNorm
    sees clean and attacked images apart. They are passed again in the backward pass, so that a step holds no more
    activations than the other strategy's (`recomputed`). `train/accuracy` is the other strategy's.

    Args:
        strategy: makes the other part, such as `PGDAT`.
        clean_share: in [0, 1]; 0.5 in the paper.

    Raises:
        ValueError: `clean_share` is outside its range.
    """

    def __init__(self, strategy: Strategy, *, clean_share: float = 0.5) -> None:
        super().__init__(strategy)
        check_between("Mixed(clean_share=...)", clean_share, 0, 1)
        self.clean_share = clean_share

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned | None:
        learn_other = partial(self.strategy.learn, model, x, y, criterion, rng)

        def mixed(learn: Callable[[], Learned | None]) -> Learned | None:
            # By then the other part has its gradient: autograd goes from the last pass to the first.
            of_clean = criterion(recomputed(model, x, before_again=self.strategy.restore_weights), y)
            learned = learn()
            check_learned(self.strategy, learned, len(x))
            if learned is None:  # it leaves the batch out
                return None
            loss = self.clean_share * of_clean + (1 - self.clean_share) * learned.loss
            again = learned.again
            return Learned(loss, learned.logits, None if again is None else lambda: mixed(again))

        return mixed(learn_other)
