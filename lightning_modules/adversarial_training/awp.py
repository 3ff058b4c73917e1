"""`AWP`: adversarial weight perturbation around any strategy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from touchstone.attacks import SampleRng
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.checkpoints import checkpoints_not_reentrant
from touchstone.attacks.core.per_sample import unit_length
from touchstone.options import check_positive

from .around import Around
from .parts.check_learned import check_learned
from .strategy import Criterion, Learned, Strategy


class AWP(Around):
    """Takes the gradient at the worst weights nearby, and applies it to the weights as they are.

    The images are made, and the loss is taken, with the weights w; each layer's weights then go one step of length
    `gamma * norm(w)` up the gradient of that loss, where the loss of the same images is taken again; after its
    backward pass the weights are back, bit for bit.

    Source: Wu, Xia, Wang, "Adversarial weight perturbation helps robust generalization", 2020, section 4: the size of
    the layers' steps, the update of the perturbation, in a single step (K2 = 1), and that of the weights. Only
    parameters of two and more dimensions move: kernels and matrices, not biases or normalization, as in their code.
    That gives the weights back after the optimizer's step, so that weight decay shrinks the moved ones; here it shrinks
    the weights as they are. Of several processes each moves its copy by the gradient of its own samples.

    In buffers, such as BatchNorm's running statistics, only the second time leaves a trace, so that they are updated as
    often as by the strategy itself in `mode="eval"`. A step costs a copy of the weights, one backward more, and as many
    forwards more as the strategy takes beside its attack: one, or three where it also passes the images as they are,
    and again in the backward pass (`TRADES`, `MART`, `Mixed(PGDAT(...))`).

    Args:
        strategy: makes images and loss, such as `PGDAT` or `TRADES`.
        gamma: length of the step as a share of the norm of each layer's weights, > 0; 0.01 for PGD-AT and 0.005 for
            TRADES in the paper.

    Raises:
        ValueError: `gamma` is not > 0, or there is another `AWP` inside `strategy`; or, at the first batch, `strategy`
            cannot learn from the same images again.
    """

    def __init__(self, strategy: Strategy, *, gamma: float = 0.01) -> None:
        super().__init__(strategy)
        check_positive(self, gamma=gamma)
        if any(isinstance(part, AWP) for part in strategy.modules()):
            raise ValueError(f"AWP(strategy=...) must have no other AWP inside, got {type(strategy).__name__} with one")
        self.gamma = gamma
        self._kept: dict[Tensor, tuple[Tensor, RemovableHandle]] = {}

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned | None:
        self.restore_weights()  # where the last backward pass broke off
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        with buffers_kept(model), checkpoints_not_reentrant():
            learned = super().learn(model, x, y, criterion, rng)
            if learned is None:  # it leaves the batch out
                return None
            gradients = list(torch.autograd.grad(learned.loss, weights, allow_unused=True, materialize_grads=True))
        if learned.again is None:
            raise ValueError(
                f"AWP(strategy=...): {type(self.strategy).__name__} must give `Learned(again=...)`, which learns from "
                "the same images once more"
            )
        self._perturb(weights, gradients)
        try:
            learned = learned.again()
            check_learned(self.strategy, learned, len(x))
        except BaseException:
            self.restore_weights()
            raise
        if learned is None:
            self.restore_weights()
        return learned

    def _perturb(self, weights: list[nn.Parameter], gradients: list[Tensor]) -> None:
        """Moves the weights; each is back as soon as it has its gradient, and its copy gone: that needs memory too."""
        for w in weights:
            gradient = gradients.pop(0)
            kept = w.detach().clone()
            with torch.no_grad():
                w.add_(self.gamma * w.norm() * unit_length(gradient[None])[0])
            self._kept[w] = kept, w.register_post_accumulate_grad_hook(self._restore)
        torch.clear_autocast_cache()  # it holds the weights in bfloat16, as they were when they were first used

    def after_backward(self, model: nn.Module) -> None:
        self.restore_weights()  # what had no gradient
        super().after_backward(model)

    def restore_weights(self) -> None:
        for w in list(self._kept):
            self._restore(w)
        torch.clear_autocast_cache()
        super().restore_weights()

    def _restore(self, w: Tensor) -> None:
        value, hook = self._kept.pop(w)
        hook.remove()
        with torch.no_grad():
            w.copy_(value)
