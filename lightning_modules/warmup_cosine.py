"""`WarmupCosine`: a learning rate that rises in a line and falls in half a cosine.

Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts; the warm-up is that of Vaswani et al., 2017.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from touchstone.options import check_between, check_counts


class WarmupCosine(LambdaLR):
    """Sets the learning rate of every optimizer step.

    Args:
        optimizer: its learning rate is the highest.
        warmup_steps: steps of the rise, >= 0.
        num_steps: steps in all, > `warmup_steps`; after them the rate stays at its end.
        end_share: the last rate over the highest, in [0, 1].

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, num_steps: int, end_share: float = 0.1) -> None:
        warmup_steps, num_steps = _whole(warmup_steps), _whole(num_steps)
        check_counts(self, warmup_steps=warmup_steps, least=0)
        check_counts(self, num_steps=num_steps)
        if not warmup_steps < num_steps:
            raise ValueError(
                f"WarmupCosine(warmup_steps=..., num_steps=...) must be >= 0 and more than that, "
                f"got {warmup_steps} and {num_steps}"
            )
        check_between("WarmupCosine(end_share=...)", end_share, 0, 1)

        def share(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            done = min(1.0, (step - warmup_steps) / (num_steps - warmup_steps))
            return end_share + (1 - end_share) * (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, share)


def _whole(steps: float) -> int:
    """The whole number that a share of steps, such as `0.07 * 100`, is but for rounding; others as they are."""
    is_whole = isinstance(steps, float) and math.isfinite(steps) and math.isclose(steps, round(steps))
    return round(steps) if is_whole else steps  # type: ignore[return-value]
