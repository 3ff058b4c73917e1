"""`MIFGSM`: the fast gradient sign method, iterated along a gathered gradient.

Source: Dong et al., "Boosting adversarial attacks with momentum", 2018, algorithm 1. In another norm than Linf the
steps go along that norm's steepest direction (equation 8 for L2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from touchstone.options import check_counts, check_flags, check_positive

from .core.ascend import ascend
from .core.attack import Attack
from .core.gain import gain_of
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.endless import Endless
from .objectives.untargeted import Untargeted


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """Steps of eps / num_steps from the sample itself, along the gradients accumulated so far (momentum).

    Args:
        threat: what the attacker may do.
        objective: what the attacker wants.
        num_steps: steps of length eps / num_steps, >= 1.
        decay: share of the accumulated gradients in each next one, >= 0; 0 accumulates none (the iterative method of
            Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", 2017).
        to_the_end: whether a sample climbs on after it has fallen: True for points that should fool another model
            than this one, the stand-in.

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> x_adv = MIFGSM(threat=Linf(eps="8/255"), to_the_end=True)(stand_in, x, y)
    """

    begins_at_the_sample = True
    threat: Threat
    objective: Objective = Untargeted()
    num_steps: int = 10
    decay: float = 1.0
    to_the_end: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps")
        check_flags(self, "to_the_end")
        check_positive(self, "decay", or_zero=True)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        objective = Endless(self.objective) if self.to_the_end else self.objective
        points, _ = ascend(
            gain_of(model, objective, y),
            x,
            start=x,
            threat=self.threat,
            num_steps=self.num_steps,
            step_size=lambda step, threat: threat.eps / self.num_steps,
            decay=self.decay,
        )
        return points
