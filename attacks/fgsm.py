"""`FGSM`: the fast gradient sign method, one step of length eps.

Source: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", 2015, section 4. In another
norm than Linf the step goes along that norm's steepest direction (then also called FGM).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .core.attack import Attack
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of length eps along the steepest direction, from the sample itself.

    Args:
        threat: what the attacker may do.
        objective: what the attacker wants.

    Example:
        >>> x_adv = FGSM(threat=Linf(eps="8/255"))(model, x, y)
    """

    kind = "one step"
    begins_at_the_sample = True
    threat: Threat
    objective: Objective = Untargeted()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        one_step = PGD(threat=self.threat, objective=self.objective, num_steps=1, rel_step_size=1.0, random_start=False)
        return one_step.perturb(model, x, y, rng)
