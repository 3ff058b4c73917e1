"""`FAB`: the fast adaptive boundary attack, which looks for the nearest adversarial point.

Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", 2020,
algorithm 1, without its final search, as in AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_flags, check_numbers

from .core.ascend import gradient_of
from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.gain import gain_of
from .core.objective import Objective
from .core.per_sample import leave_every, lengths, norms, per_sample, wide, widest
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.losses import Margin
from .objectives.targeted import Targeted
from .objectives.towards import Towards, check_targets, towards_nearest
from .objectives.untargeted import Untargeted
from .parts.hyperplane import to_hyperplane
from .threats.ball import Ball
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Steps onto the decision boundary as if it were flat, and pulls each step back towards the sample.

    It does not climb a loss, and no step size depends on eps: it finds what gradient ascent misses where losses
    saturate. A sample leaves as soon as it has fallen inside the threat; of one that only falls outside, the nearest
    point is projected back.

    Args:
        threat: what the attacker may do; Linf, L2 or L1.
        objective: what the attacker wants; of its loss nothing is used.
        num_steps: steps per restart, >= 1; each costs two forwards, and one gradient (`Untargeted` without
            `num_targets`: one for every other class).
        num_restarts: how often each sample and target is tried, >= 1; all but the first time from a random point.
        num_targets: 0 takes the nearest boundary of all; above 0, that to so many of the nearest classes in turn, any
            wrong class counting (FAB-T).
        random_start: whether the first try too starts from a random point within half of eps, and not from the sample.
        early_stop: whether a sample leaves once it has fallen inside the threat; False goes on to the nearest point
            that it can find, by all restarts and targets.
        alpha_max: largest share of a step that is taken from the sample itself, in [0, 1].
        eta: how far a step goes of the way to the boundary, >= 1.
        beta: share of its change that a fallen sample keeps, to come at the boundary again from within, in (0, 1).

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> fab_t = FAB(threat=L2(eps=0.5), num_targets=9)
    """

    supports: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    threat: Threat
    objective: Objective = Untargeted()
    num_steps: int = 100
    num_restarts: int = 1
    num_targets: int = 0
    random_start: bool = False
    early_stop: bool = True
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_restarts")
        check_counts(self, "num_targets", least=0)
        check_flags(self, "random_start", "early_stop")
        check_numbers(self, "alpha_max", "eta", "beta")
        if not isinstance(self.objective, Untargeted | Targeted):
            raise ValueError(f"FAB(objective=...) must be Untargeted or Targeted, got {self.objective!r:.80}")
        check_targets("FAB(num_targets=...)", self.objective, self.num_targets)
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"FAB(alpha_max=...) must be in [0, 1], got {self.alpha_max!r}")
        if not self.eta >= 1:
            raise ValueError(f"FAB(eta=...) must be >= 1, got {self.eta:g}")
        if not 0 < self.beta < 1:
            raise ValueError(f"FAB(beta=...) must be in (0, 1), got {self.beta:g}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        if self.num_restarts == 1 and self.num_targets == 0:
            return self._search(model, x, y, start=self._near(x, rng) if self.random_start else x)
        one = replace(self, num_restarts=1, num_targets=0)
        searches = [
            replace(one, objective=goal, random_start=self.random_start or number > 0)
            for goal in towards_nearest(self.objective, self.num_targets, model, x, y)
            for number in range(self.num_restarts)
        ]
        measure, nearest_in = gain_of(model, self.objective, y), None if self.early_stop else self.threat
        return attack_in_sequence(searches, measure, model, x, y, rng, nearest_in=nearest_in)

    def _near(self, x: Tensor, rng: SampleRng) -> Tensor:
        return self._ball.resized(self._ball.radii(x) / 2).start(x, rng)

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """One restart: the nearest adversarial point found, or where the search ended, inside the threat."""
        everyone, points, near = x, start.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        rows, attack, here = torch.arange(len(x), device=x.device), self, start
        distance = torch.full((len(x),), torch.inf, dtype=widest(x.device), device=x.device)
        for step in range(self.num_steps):
            gap, slope = attack._nearest_boundary(model, here, y)
            with torch.no_grad():
                here = attack._step(here, x, gap, slope)
                reached = attack.objective.reached(model(here), y)
                length = attack._ball.distance(here, x)
                better = reached & (length < distance)
                if self.early_stop:
                    # On an accelerator a fallen sample stays until the next look; it keeps the point at which it fell.
                    better &= ~near[rows]
                distance = torch.where(better, length, distance)
                points[rows] = torch.where(wide(better | distance.isinf(), x), here, points[rows])
                here = torch.where(wide(reached, x), x + self.beta * (here - x), here)
                near[rows] = distance <= attack._ball.radius(distance)
                if self.early_stop and step % leave_every(x.device) == 0 and bool(near[rows].any()):
                    left = ~near[rows]
                    rows, attack, here, x, y = rows[left], attack.take(left), here[left], x[left], y[left]
                    distance = distance[left]
                    if not len(rows):
                        break
        return torch.where(wide(near, points), points, self.threat.project(points, everyone))

    def _nearest_boundary(self, model: nn.Module, here: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gap `(N,)` to the nearest boundary, linear in the free pixels, and its gradient `(N, ...)`."""
        here = here.detach().requires_grad_()
        logits = model(here)
        own = logits.gather(1, y[:, None])[:, 0]
        if isinstance(self.objective, Targeted):
            if isinstance(self.objective, Towards):
                # Where any wrong class will do, a third one is no obstacle: from there too it is back to the true one.
                gain = logits.gather(1, self.objective.classes(logits)[:, None])[:, 0] - own
            else:
                gain = replace(self.objective, loss=Margin()).gain(logits, y)
            return gain.detach().to(here.dtype), self._ball.masked(gradient_of(gain, here), 0.0)
        dual = {1: torch.inf, 2: 2, torch.inf: 1}[self._ball.p]
        nearest = torch.full_like(own, torch.inf)
        gap, slope = torch.zeros_like(nearest), torch.zeros_like(here)
        for number in range(logits.shape[1] - 1):
            other = number + (y <= number).long()  # the classes without the true one
            gain = logits.gather(1, other[:, None])[:, 0] - own
            grad = gradient_of(gain, here, keep_graph=number + 2 < logits.shape[1])
            grad = self._ball.masked(grad, 0.0)
            length = lengths(grad) if dual == 2 else norms(grad, dual)
            far = gain.detach().abs() / length.clamp_min(torch.finfo(grad.dtype).tiny)
            closer = far < nearest
            nearest = torch.where(closer, far, nearest)
            gap = torch.where(closer, gain.detach(), gap)
            slope = torch.where(wide(closer, slope), grad, slope)
        return gap.to(here.dtype), slope

    def _step(self, here: Tensor, x: Tensor, gap: Tensor, slope: Tensor) -> Tensor:
        """Beyond the boundary by eta, from here and from the sample itself, blended."""
        ball = self._ball
        from_here = to_hyperplane(here, gap, slope, p=ball.p, box=ball.box)
        gap_at_x = gap + (slope * (x - here)).flatten(1).sum(1)
        from_x = to_hyperplane(x, gap_at_x, slope, p=ball.p, box=ball.box)
        length, length_from_x = (norms(move, ball.p).clamp_min(1e-8) for move in (from_here, from_x))
        alpha = per_sample((length / (length + length_from_x)).clamp_max(self.alpha_max), x)
        blended = (1 - alpha) * (here + self.eta * from_here) + alpha * (x + self.eta * from_x)
        return ball.masked(ball.clip(blended), x)  # outside the mask to the last bit

    @property
    def _ball(self) -> Ball:
        assert isinstance(self.threat, Ball)  # of `supports`
        return self.threat
