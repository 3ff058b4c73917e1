"""`PGD`: projected gradient descent.

Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from touchstone.options import check_counts, check_flags, check_positive

from .core.ascend import StepSize, ascend, cosine_steps
from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.eps import parse_number
from .core.gain import gain_of
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.endless import Endless
from .objectives.untargeted import Untargeted


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent from a random start.

    Restarts and early stopping are per sample: a sample that has fallen is not attacked again, and of one that
    never falls the restart with the largest gain is kept.

    Args:
        threat: what the attacker may do.
        objective: what the attacker wants.
        num_steps: gradient steps per restart, >= 1.
        step_size: size of a step in the unit of eps, > 0, a number or a string such as `"2/255"`.
        rel_step_size: the same as a share of eps; give one of the two, or neither for steps that fall from twice eps
            to nothing along half a cosine, which end nearer to the worst case than any constant step.
        num_restarts: starts tried for each sample, >= 1; more than one needs `random_start`.
        random_start: whether to start from a random point of the threat or from the sample itself.
        start_std: standard deviation, in pixels, > 0, of normal noise whose point in the threat is the random start;
            None for a start that is uniform in it.
        early_stop: whether fallen samples leave the batch at once; False computes their restart to its end, for the
            same result.
        to_the_end: whether a sample climbs on after it has fallen, for as many steps as the others: the inner
            maximisation of adversarial training (Madry et al., equation 2.1). A verdict gains nothing by it.
        num_eot_samples: forwards and gradients averaged at each step, >= 1, for a model that draws random numbers
            (`gain_of`).

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> attack = PGD(threat=Linf(eps=8 / 255), num_steps=20)
        >>> x_adv = attack(model, x, y)
    """

    threat: Threat
    objective: Objective = Untargeted()
    num_steps: int = 20
    step_size: float | str | None = None
    rel_step_size: float | None = None
    num_restarts: int = 1
    random_start: bool = True
    start_std: float | None = None
    early_stop: bool = True
    to_the_end: bool = False
    num_eot_samples: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_restarts", "num_eot_samples")
        check_flags(self, "random_start", "early_stop", "to_the_end")
        if self.step_size is not None and self.rel_step_size is not None:
            raise ValueError("PGD(step_size=..., rel_step_size=...): give one of the two, got both")
        for name in ("step_size", "rel_step_size"):
            value = getattr(self, name)
            if value is not None:
                value = parse_number(value, f"PGD({name}=...)")
                if not 0 < value < float("inf"):
                    raise ValueError(f"PGD({name}=...) must be > 0 and finite, got {value:g}")
                object.__setattr__(self, name, value)
        object.__setattr__(self, "begins_at_the_sample", not self.random_start)
        if self.start_std is not None:
            check_positive(self, "start_std")
            if not self.random_start:
                raise ValueError("PGD(start_std=...) needs random_start=True")
        if self.num_restarts > 1 and not self.random_start:
            raise ValueError("PGD(num_restarts=...) above 1 needs random_start=True: all starts would be the same")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        if self.num_restarts == 1:
            return self._climb(model, x, y, rng.fold(0))
        measure = gain_of(model, self.objective, y, num_eot_samples=self.num_eot_samples)
        return attack_in_sequence([replace(self, num_restarts=1)] * self.num_restarts, measure, model, x, y, rng)

    def _climb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        """One restart."""
        objective = Endless(self.objective) if self.to_the_end else self.objective
        points, _ = ascend(
            gain_of(model, objective, y, num_eot_samples=self.num_eot_samples),
            x,
            start=self._start(x, rng),
            threat=self.threat,
            num_steps=self.num_steps,
            step_size=self._step_size(),
            early_stop=self.early_stop,
        )
        return points

    def _start(self, x: Tensor, rng: SampleRng) -> Tensor:
        if not self.random_start:
            return x
        if self.start_std is None:
            return self.threat.start(x, rng)
        return self.threat.project(x + self.start_std * rng.normal(x), x)

    def _step_size(self) -> StepSize:
        step_size, rel_step_size = self.step_size, self.rel_step_size
        if step_size is not None:
            return lambda step, threat: step_size  # type: ignore[return-value]  # parsed in __post_init__
        if rel_step_size is not None:
            return lambda step, threat: rel_step_size * threat.eps
        return cosine_steps(self.num_steps)
