"""`Towards`: any wrong class will do, and the way leads towards a particular one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.logits import predicted
from ..core.objective import Objective
from .targeted import Targeted
from .untargeted import Untargeted


@dataclass(frozen=True, eq=False)
class Towards(Targeted):
    """Any wrong class will do, but what is climbed leads towards a particular one.

    A targeted attack towards each of several classes finds more than an untargeted one of as many steps: away from
    the true class there are several ways, of which the steepest at the start need not be the one that arrives.

    Source: Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019 (MultiTargeted).

    Args:
        target: as in `Targeted`.
        loss: what is climbed: its way `towards` the target.

    Raises:
        ValueError: the target is negative, not an integer, or an unknown choice.
    """

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return predicted(logits) != y


def check_targets(call: str, objective: Objective, num_targets: int) -> None:
    """Raises ValueError where `towards_nearest` has no use for the objective; the message begins with `call`."""
    if num_targets and not isinstance(objective, Untargeted):
        raise ValueError(
            f"{call} above 0 chooses the classes itself and needs an Untargeted objective, got {objective!r:.80}"
        )


@torch.no_grad()
def towards_nearest(objective: Objective, num_targets: int, model: nn.Module, x: Tensor, y: Tensor) -> list[Objective]:
    """The objective in parts: towards each of the nearest classes, those with the largest logits before the attack.

    Args:
        objective: `Untargeted` where `num_targets` is above 0.
        num_targets: how many classes, at most all the others; 0 gives the objective itself, in one part.
        model: images to logits `(N, C)`; one forward where classes are to be chosen.
        x: the unattacked samples, `(N, ...)`.
        y: the true class, int64 `(N,)`.
    """
    if not num_targets:
        return [objective]
    assert isinstance(objective, Untargeted)
    logits = model(x).scatter(1, y[:, None], -torch.inf)
    nearest = logits.topk(min(num_targets, logits.shape[1] - 1), dim=1).indices
    return [Towards(target=target, loss=objective.loss) for target in nearest.unbind(1)]
