"""`InBfloat16`: an attack whose forwards and gradients are computed in bfloat16, where convolutions are faster."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from .core.around import Around
from .core.attack import Attack
from .core.sample_rng import SampleRng
from .core.wrapping import Wrapping
from .transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class InBfloat16(Wrapping):
    """Runs an attack with the model under autocast to bfloat16; samples, steps and projections stay in float32.

    Points are what the projection made them in float32, so that they lie inside the threat; and the judge measures in
    float32, so that a sample which only the coarser logits took for turned counts as standing. With 8 bits of mantissa
    some signs of small gradients turn, too. Models in float64, or with weights or buffers in float16, are
    computed as they are: layers that keep to the dtype of their weights, as BatchNorm does, take no bfloat16 there.

    Args:
        attack: what is run; threat, objective and kind are those of this attack.

    Raises:
        ValueError: `attack` is no attack, one that learns from samples first, or a `Transfer`, which never asks the
            model that it is given.

    Example:
        >>> attack = InBfloat16(attack=PGD(threat=Linf(eps="8/255"), num_steps=20))
    """

    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.attack, Transfer):
            raise ValueError(
                "InBfloat16(attack=...) must be an attack that asks the model itself, got a Transfer: give that "
                "`Transfer(attack=InBfloat16(...), source=...)`"
            )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        return self.attack.perturb(_Coarser(model), x, y, rng)


class _Coarser(Around):
    """A model whose forward, and what is taken backwards through it, is computed in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.enabled = not any(held.dtype == torch.float16 for held in chain(model.parameters(), model.buffers()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.enabled):
            return self.model(x)
