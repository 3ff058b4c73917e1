"""`MART`: adversarial training that asks more of the images that are misclassified before any attack."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from touchstone.attacks import Attack, SampleRng
from touchstone.options import check_positive

from .inner_attack import InnerAttack
from .parts.recomputed import recomputed
from .strategy import Criterion, Learned
from .trades import divergence


class MART(InnerAttack):
    """Minimises `BCE(p(x'), y) + weight * KL(p(x) || p(x')) * (1 - p_y(x))` with x' the attacked images.

    BCE, the boosted cross-entropy, is `-log p_y(x') - log(1 - max of the others p_k(x'))`.

    Source: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", 2020, the
    boosted cross-entropy and the overall objective of their section 3.3, with their lambda as `weight`. Gradients flow
    through every factor, as in their code; that has 1.0001 - max in the second logarithm, which caps it at 9.2, here
    nothing does. The classifier's own loss, and with it label smoothing, takes no part; its class weights do, as the
    mean over the samples is weighted. The clean images are passed again in the backward pass, so that a step holds the
    activations of one pass (`recomputed`).

    Args:
        attack: makes the images; the paper's is PGD on the cross-entropy, to the end.
        weight: of the divergence, >= 0; 5 in the paper.
        mode: as in `InnerAttack`; the paper's code has `"eval"`. The clean and the attacked images are each passed
            once in the modes of training, so that a step updates the running statistics of BatchNorm twice.

    Raises:
        ValueError: `weight` is negative or not finite, or `attack` or `mode` is none that `InnerAttack` takes.
    """

    def __init__(self, attack: Attack, *, weight: float = 5.0, mode: Literal["eval", "train"] = "eval") -> None:
        super().__init__(attack, mode=mode)
        check_positive(self, weight=weight, or_zero=True)
        self.weight = weight

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        x_adv = self.attacked(self.attack, model, x, y, rng)

        def take() -> Learned:
            clean, logits = recomputed(model, x).softmax(1), model(x_adv)
            missing = 1 - clean.gather(1, y[:, None])[:, 0]
            loss = boosted_cross_entropy(logits, y) + self.weight * divergence(clean, logits) * missing
            return Learned(criterion.mean(loss, y), logits, again=take)

        return take()


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """`-log p_y - log(1 - p_k)` with k the likeliest wrong class: float `(N,)`.

    Args:
        logits: float `(N, C)`.
        y: int64 `(N,)`.
    """
    log_p = logits.log_softmax(1)
    wrong = log_p.detach().scatter(1, y[:, None], -float("inf")).argmax(1, keepdim=True)
    # 1 - p_k as the sum of all others: finite, with its gradient, also where p_k rounds to 1.
    log_rest = log_p.scatter(1, wrong, -float("inf")).logsumexp(1)
    return -log_p.gather(1, y[:, None])[:, 0] - log_rest
