"""`TRADES`: the loss of the images, plus how far the prediction can be moved from theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import Attack, SampleRng
from touchstone.attacks.core.objective import Objective
from touchstone.options import check_positive

from .inner_attack import InnerAttack
from .parts.recomputed import recomputed
from .strategy import Criterion, Learned


class TRADES(InnerAttack):
    """Minimises `criterion(f(x), y) + beta * KL(f(x) || f(x'))` with x' where the divergence is worst.

    Source: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", 2019, equation 3 with
    the losses of their section 4 for several classes, and algorithm 1. Their 1 / lambda is beta. Gradients flow
    through both predictions, as in their code.

    Class weights count in the criterion; the divergence, which asks for no class, is the mean over all samples.

    The clean images are passed once for both: the inner maximisation moves away from the prediction, in the modes of
    training, that the loss is taken of. The paper's code passes them anew for it, in evaluation mode, and for the
    divergence of the loss, which is a third update of the running statistics of BatchNorm. The backward pass passes
    them again, so that a step holds the activations of one pass (`recomputed`).

    Args:
        attack: the inner maximisation. It climbs the divergence in place of its objective, which nothing reaches, so
            that it goes to its last step. The paper's is `PGD(num_steps=10, rel_step_size=0.25, start_std=0.001)`: at
            the images themselves the divergence has no gradient. What follows no gain, as `FeatureDistance`,
            `HopSkipJump`, `RandomNoise` and a ready `Universal`, is taken, but does not climb it.
        beta: weight of the divergence, >= 0; 1 to 10 in the paper, 6 for its CIFAR-10 net.
        mode: as in `InnerAttack`; the paper's is `"eval"`. The clean and the attacked images are each passed once in
            the modes of training, so that a step updates the running statistics of BatchNorm twice.

    Raises:
        ValueError: `beta` is negative or not finite; `attack` takes no other objective, begins at the sample, or is
            none that `InnerAttack` takes; or `mode` is neither.
    """

    def __init__(self, attack: Attack, *, beta: float = 6.0, mode: Literal["eval", "train"] = "eval") -> None:
        super().__init__(attack, mode=mode)
        check_positive(self, beta=beta, or_zero=True)
        try:
            attack.with_objective(_Divergence(torch.full((1, 2), 0.5)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "TRADES(attack=...) must climb what it is told to, here the divergence, as PGD, and APGD without "
                f"num_targets, do, got {type(attack).__name__}, which chooses that itself"
            ) from error
        if attack.begins_at_the_sample:
            raise ValueError(
                "TRADES(attack=...) must begin beside the images, as PGD(start_std=0.001) does: at the images "
                f"themselves the divergence has no gradient; got {type(attack).__name__}, which begins there"
            )
        self.beta = beta

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        clean = recomputed(model, x)
        attack = self.attack.with_objective(_Divergence(clean.detach().float().softmax(1)))
        x_adv = self.attacked(attack, model, x, y, rng)

        def take(clean: Tensor) -> Learned:
            logits = model(x_adv)
            loss = criterion(clean, y) + self.beta * divergence(clean.softmax(1), logits).mean()
            return Learned(loss, logits, again=lambda: take(recomputed(model, x)))

        return take(clean)


def divergence(probabilities: Tensor, logits: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of the softmax of `logits` from `probabilities`, both `(N, C)`: `(N,)`."""
    return F.kl_div(logits.log_softmax(1), probabilities, reduction="none").sum(1)


@dataclass(frozen=True, eq=False)
class _Divergence(Objective):
    """Climbs the divergence from these probabilities, float `(N, C)`, and never reaches it."""

    probabilities: Tensor

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return divergence(self.probabilities.to(logits.dtype), logits)

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y, dtype=torch.bool)
