"""`L1Adam`: Adam on the gain minus the L1 length of the change, until the class switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_positive

from .core.ascend import gradient_of
from .core.attack import Attack
from .core.gain import gain_of
from .core.objective import Objective
from .core.per_sample import leave_every, norms, wide
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .parts.minimal import Adam
from .threats.ball import Ball
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf


@dataclass(frozen=True, kw_only=True, eq=False)
class L1Adam(Attack):
    """Maximises the attacker's gain by Adam, less a penalty on the L1 length of the change, until a sample falls.

    Every step ends inside the threat. The penalty keeps pixels that hardly matter near where they were. Its small steps
    find nothing inside L0, whose projection takes every one of them back.

    Args:
        threat: what the attacker may do; Linf, L2 or L1.
        objective: what the attacker wants.
        num_steps: steps of Adam at most, >= 1.
        step_size: of Adam, as a share of the width of the box, > 0.
        penalty: the price of the L1 length of the change, in gain per width of the box, >= 0; a pixel whose slope is
            less steep is drawn back to where it was, and hovers within a step of it. A number, or one for each sample,
            `(N,)`.

    Raises:
        ValueError: a value is outside its range.
    """

    supports: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    begins_at_the_sample = True
    threat: Threat
    objective: Objective = Untargeted()
    num_steps: int = 100
    step_size: float = 0.01
    penalty: float | Tensor = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps")
        check_positive(self, "step_size")
        if not isinstance(self.penalty, Tensor):
            check_positive(self, "penalty", or_zero=True)
        elif not bool((self.penalty.isfinite() & (self.penalty >= 0)).all()):
            raise ValueError("L1Adam(penalty=...) must be >= 0 and finite for every sample")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        assert isinstance(self.threat, Ball)  # of `supports`
        width = self.threat.width
        measure, points, adam = gain_of(model, self.objective, y), x.clone(), Adam(x, self.step_size * width)
        rows = torch.arange(len(x), device=x.device)
        fallen = torch.zeros_like(rows, dtype=torch.bool)
        for step in range(self.num_steps):
            here = points[rows].requires_grad_()
            gain, reached = measure(here, rows)
            grad = gradient_of(gain - self._price(rows) * norms(here - x[rows], 1) / width, here)
            with torch.no_grad():
                fallen = fallen | reached
                if step % leave_every(x.device) == 0 and bool(fallen.any()):
                    rows, here, grad, fallen = rows[~fallen], here[~fallen], grad[~fallen], fallen[~fallen]
                    if not len(rows):
                        break
                moved = self.threat.take(rows).project(here + adam.step(-grad, rows), x[rows])
                points[rows] = torch.where(wide(fallen, x), here, moved)
        return points

    def _price(self, rows: Tensor) -> float | Tensor:
        penalty = self.take(rows).penalty
        return penalty.to(rows.device) if isinstance(penalty, Tensor) else penalty
