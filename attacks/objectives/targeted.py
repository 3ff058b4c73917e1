"""`Targeted`: the attacker wants one particular class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from touchstone.options import check_choice, is_whole_number

from ..core.checks import is_whole
from ..core.logits import predicted
from ..core.objective import Objective
from ..core.sample_rng import SampleRng
from .losses import CrossEntropy, Loss, check_loss

Choice = Literal["random", "least_likely", "runner_up"]


@dataclass(frozen=True, eq=False)
class Targeted(Objective):
    """The attacker wants one particular class.

    A sample whose true class is the target cannot be turned into it: the objective is never reached there.

    Args:
        target: a class; a tensor of one class per sample, int64 `(N,)`; or a choice made for each sample:
            `"random"` (any other class, by the sample's own noise), `"least_likely"` or `"runner_up"` (the other
            class with the smallest or largest logit before the attack).
        loss: what is climbed: its way `towards` the target, by itself the loss of the target descended.

    Raises:
        ValueError: the target is negative, not an integer, or an unknown choice.
    """

    target: int | Tensor | Choice
    loss: Loss = field(default=CrossEntropy(), kw_only=True)

    def __post_init__(self) -> None:
        check_loss(self, self.loss)
        target = self.target
        if isinstance(target, str):
            check_choice("Targeted(target=...)", target, get_args(Choice), hint="; a class is given by its number")
            return
        if isinstance(target, Tensor):
            if not is_whole(target) or target.ndim > 1:
                raise ValueError(
                    "Targeted(target=...) as a tensor must hold one class per sample, integers `(N,)`, "
                    f"got {target.dtype} {tuple(target.shape)}"
                )
            smallest = int(target.min()) if target.numel() else 0
        elif is_whole_number(target):
            smallest = int(target)
            object.__setattr__(self, "target", smallest)
        else:
            raise ValueError(f"Targeted(target=...) must be a class, a tensor of classes or a choice, got {target!r}")
        if smallest < 0:
            raise ValueError(f"Targeted(target=...) must be >= 0, got {smallest}")

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.loss.towards(logits, y, self.classes(logits))

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        target = self.classes(logits)
        return (predicted(logits) == target) & (target != y)

    def aim(self, clean_logits: Callable[[], Tensor], y: Tensor, rng: SampleRng) -> Targeted:
        if not isinstance(self.target, str):
            return self
        logits = clean_logits().detach()
        if self.target == "random":
            other = rng.integers(logits.shape[1] - 1).to(y.device)
            return replace(self, target=other + (other >= y))
        sign = 1 if self.target == "runner_up" else -1
        return replace(self, target=(sign * logits).scatter(1, y[:, None], -torch.inf).argmax(1))

    def check_classes(self, num_classes: int) -> None:
        self.loss.check_classes(num_classes, towards=True)
        if isinstance(self.target, str):
            return
        largest = int(self.target.max()) if isinstance(self.target, Tensor) and self.target.numel() else self.target
        if not isinstance(largest, Tensor) and largest >= num_classes:
            raise ValueError(f"Targeted(target={largest}): the model has {num_classes} classes, 0 to {num_classes - 1}")

    def classes(self, logits: Tensor) -> Tensor:
        """The target of each sample, int64 `(N,)`, for logits `(N, C)`."""
        if isinstance(self.target, str):
            raise ValueError(f"Targeted(target={self.target!r}) depends on the samples: call `aim` first")
        if isinstance(self.target, Tensor):
            return self.target.to(device=logits.device, dtype=torch.int64).expand(len(logits))
        self.check_classes(logits.shape[1])
        return torch.full((len(logits),), self.target, device=logits.device)
