"""`Universal`: one perturbation for all samples, learned from others.

Source: Moosavi-Dezfooli et al., "Universal adversarial perturbations", 2017; learned by stochastic gradients as in
Shafahi et al., "Universal adversarial training", 2020, algorithm 1 (without the clipped loss of its equation 4, which
found no more here).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .core.ascend import cosine_steps, gradient_of
from .core.attack import Attack
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .threats.ball import Ball


@dataclass(frozen=True, kw_only=True, eq=False)
class Universal(Attack):
    """Adds the same perturbation to every sample, cut to its own threat and to the box.

    It is learned from samples that are not attacked (`prepare`), so that a sample's result does not depend on the
    others that are. Steps along the steepest direction of the gain, summed over a batch, fall from twice eps to
    nothing along half a cosine.

    Args:
        threat: what the attacker may do; a ball. Of several eps the largest is learned, of several masks their union.
        objective: what the attacker wants, the same for all samples.
        num_epochs: how often learning goes through its samples, >= 1.
        batch_size: samples per step of learning, >= 1.
        perturbation: what is added, float `(1, ...)`, where it is known already; nothing is learned then.

    Raises:
        ValueError: a value is outside its range; or, when it learns, the objective differs between samples.

    Example:
        >>> universal = Universal(threat=Linf(eps="8/255")).prepare(model, x_train, y_train)
        >>> universal.perturbation
    """

    kind = "black box"  # it looks at no gradient of the sample, so that a gradient attack should turn more
    supports = (Ball,)
    threat: Threat
    objective: Objective = Untargeted()
    num_epochs: int = 5
    batch_size: int = 64
    perturbation: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_epochs", "batch_size")
        if self.perturbation is not None and (self.perturbation.ndim < 2 or len(self.perturbation) != 1):
            shape = tuple(self.perturbation.shape)
            raise ValueError(f"Universal(perturbation=...) must be one for all samples, `(1, ...)`, got {shape}")
        object.__setattr__(self, "needs_samples", self.perturbation is None)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        assert self.perturbation is not None
        return self.threat.project(x + self.perturbation.to(x), x)

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Universal:
        self.objective.check_rows(1)
        ball, added = self._for_all(), torch.zeros_like(x[:1])
        changes = ball.unboxed()
        generator, num_batches = torch.Generator().manual_seed(rng.seed), -(-len(x) // self.batch_size)
        step_size = cosine_steps(num_steps := self.num_epochs * num_batches)
        for step in range(num_steps):
            if step % num_batches == 0:
                batches = torch.randperm(len(x), generator=generator).to(x.device).split(self.batch_size)
            rows = batches[step % num_batches]
            added = added.detach().requires_grad_()
            grad = gradient_of(self._gain(model, x[rows], y[rows], rng.take(rows), added), added)
            with torch.no_grad():
                stepped = added + step_size(step, ball) * ball.direction(grad)
                added = changes.project(stepped, torch.zeros_like(added))
        return replace(self, perturbation=added.detach())

    def _gain(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng, added: Tensor) -> Tensor:
        assert isinstance(self.threat, Ball)
        objective = self.objective.aim(lambda: model(x).detach(), y, rng)
        return objective.gain(model(self.threat.clip(x + added)), y)

    def _for_all(self) -> Ball:
        """The smallest ball that holds those of all samples."""
        assert isinstance(self.threat, Ball)
        mask, eps = self.threat.mask, self.threat.eps
        return replace(  # type: ignore[type-var]
            self.threat,
            eps=float(eps.max()) if isinstance(eps, Tensor) else eps,
            mask=mask.any(0, keepdim=True) if isinstance(mask, Tensor) else None,
        )
