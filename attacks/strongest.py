"""`Strongest`: the cascade that answers "how robust is it really" at the lowest cost.

Its parts are known: a margin loss, steps that fall from twice eps along a cosine, and momentum (Croce and Hein,
2020); targeted attacks towards the nearest classes only (Gao et al., "Fast and reliable evaluation of adversarial
robustness with minimum-margin attack", 2022). What is spent on a sample depends on that sample alone, so that its
verdict is the same in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .core.ascend import ascend, cosine_steps
from .core.attack import Attack
from .core.checks import check_counts
from .core.sample_rng import SampleRng
from .core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Strongest(Attack):
    """Cheap steps first, survivors only, and effort where the margin is small.

    First every sample climbs its margin from a random start. A survivor that has left at most the share `near` of the
    margin it began with then climbs towards each of its nearest classes, those with the smallest margin seen, each
    time from another random start. More steps, targets, rounds and a larger `near` make it thorough.

    Args:
        threat: what the attacker may do.
        num_steps: steps of the first climb, >= 1.
        num_targets: classes tried for a survivor, >= 1.
        num_target_steps: steps towards each, >= 1.
        num_rounds: how often the nearest classes are tried, each time from another random start, >= 1.
        near: the share of its first margin that a survivor may have left to be tried again, in (0, 1].

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> report = evaluate(model, x, y, {"strongest": Strongest(threat=Linf(eps=8 / 255))})
    """

    threat: Threat
    num_steps: int = 10
    num_targets: int = 3
    num_target_steps: int = 15
    num_rounds: int = 1
    near: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_targets", "num_target_steps", "num_rounds")
        if not 0 < self.near <= 1:
            raise ValueError(f"Strongest(near=...) must be in (0, 1], got {self.near:g}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        search = _Search(self, model, x, y)
        everyone, start = torch.arange(len(x), device=x.device), self.threat.start(x, rng.fold(-1))
        search.climb(everyone, start, targets=None, num_steps=self.num_steps)
        for number in range(self.num_rounds):
            for rank in range(min(self.num_targets, search.gaps.shape[1] - 1)):
                rows = search.worth_trying(self.near)
                if not len(rows):
                    break
                targets = search.gaps[rows].topk(rank + 1, dim=1).indices[:, rank]
                noise = rng.take(rows).fold(number * self.num_targets + rank)
                start = self.threat.take(rows).start(x[rows], noise)
                search.climb(rows, start, targets=targets, num_steps=self.num_target_steps)
        return search.best


class _Search:
    """What the cascade has seen of each sample so far."""

    def __init__(self, attack: Strongest, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.attack, self.model, self.x, self.y = attack, model, x, y
        self.best = x.clone()
        self.fallen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.gaps = torch.empty(0)  # (N, C): the largest seen logit of each class minus the true class's
        self.first_margin = torch.empty(0)  # (N,): the margin where the first climb began

    def climb(self, rows: Tensor, start: Tensor, *, targets: Tensor | None, num_steps: int) -> None:
        """Climbs from `start` the margin of one target for each row, or of the nearest other class."""

        def measure(points: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            labels = self.y[rows[part], None]
            logits = self.model(points)
            gap = (logits - logits.gather(1, labels)).scatter(1, labels, -torch.inf)
            self._see(rows[part], gap.detach())
            nearest = gap.amax(1)
            gain = nearest if targets is None else gap.gather(1, targets[part, None])[:, 0]
            return gain, nearest.detach() > 0

        points, reached = ascend(
            measure,
            self.x[rows],
            start=start,
            threat=self.attack.threat.take(rows),
            num_steps=num_steps,
            step_size=cosine_steps(num_steps),
            momentum=0.25,
        )
        self.best[rows] = points
        self.fallen[rows] = reached

    def _see(self, rows: Tensor, gap: Tensor) -> None:
        if not len(self.gaps):
            self.gaps, self.first_margin = gap.clone(), gap.amax(1)
        else:
            self.gaps[rows] = torch.maximum(self.gaps[rows], gap)

    def worth_trying(self, near: float) -> Tensor:
        """The survivors that have at most the share `near` of their first margin left: int64 `(M,)`."""
        left = self.gaps.amax(1) / self.first_margin.clamp_max(-1e-12)
        return (~self.fallen & (left <= near)).nonzero()[:, 0]
