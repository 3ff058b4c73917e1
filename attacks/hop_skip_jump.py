"""`HopSkipJump`: walks along the decision boundary, and asks the model for nothing but decisions.

Source: Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", 2020, algorithms 1
and 2, equations 9 (gradient direction), 14 and 16 (its variance and the radius of the queries).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_flags

from .core.attack import Attack
from .core.objective import Objective
from .core.per_sample import norms, per_sample, wide
from .core.sample_rng import SampleRng
from .objectives.untargeted import Untargeted
from .parts.minimal import Nearest
from .threats.l2 import L2
from .threats.linf import Linf

_NUM_HALVINGS = 10  # of a step, until it ends where the objective is reached
_LEAST_BISECTIONS = 12
_AT_ONCE = 20  # directions drawn at a time, for the memory
_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """From a random image that reaches the objective to the boundary, and along it nearer to the sample.

    A sample for which no random image reaches the objective stays as it is. The boundary is met by 12 bisections at
    least, to a 4096th of the distance: by the paper's share, which is chosen for images, samples of up to some 160
    features would have fewer, and a single feature none, so that points would stay far beyond the boundary.

    Args:
        threat: what the attacker may do, Linf or L2, with a box.
        objective: what the attacker wants.
        num_queries: images of each sample shown to the model at most, >= 1.
        num_starts: random images tried for each sample at most, >= 1.
        num_directions: queries for the first gradient, growing with the square root of the steps made, >= 2.
        minimal: whether to spend all queries on the smallest change; otherwise a sample is done as soon as a point
            inside the threat is found.

    Raises:
        ValueError: a value is outside its range, or the threat is not one of `supports`.
    """

    kind = "black box"
    supports = (Linf, L2)
    threat: Linf | L2
    objective: Objective = Untargeted()
    num_queries: int = 2000
    num_starts: int = 50
    num_directions: int = 100
    minimal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_queries", "num_starts")
        check_counts(self, "num_directions", least=2)
        check_flags(self, "minimal")
        if self.threat.box is None:
            raise ValueError("HopSkipJump(threat=...) must have a box: the search begins at random images of it")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        walk = _Walk(self, model, x, y, rng)
        rows = walk.begin()
        number = 0
        while len(rows):
            number += 1
            num_directions = int(self.num_directions * sqrt(number))
            rows = rows[walk.num_left[rows] >= num_directions + _NUM_HALVINGS + walk.num_bisections]
            if not self.minimal:
                rows = rows[~walk.nearest.inside[rows]]
            if len(rows):
                walk.step(rows, number, num_directions)
        return walk.nearest.result()


class _Walk:
    """Where each sample's walk is, and how many queries it has left."""

    def __init__(self, attack: HopSkipJump, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> None:
        assert attack.threat.box is not None
        self.attack, self.model, self.x, self.y, self.rng = attack, model, x, y, rng
        self.low, self.high = attack.threat.box
        self.points = x.clone()
        self.nearest = Nearest(attack.threat, x)
        self.num_left = torch.full((len(x),), attack.num_queries, device=x.device)
        self.num_pixels = x[0].numel()
        # The boundary is met to a share theta of the distance: D^-3/2 in L2, D^-2 in Linf.
        of_the_paper = ceil(log2(self.num_pixels) * (1.5 if isinstance(attack.threat, L2) else 2))
        self.num_bisections = max(_LEAST_BISECTIONS, of_the_paper)

    def begin(self) -> Tensor:
        """Finds points on the boundary: the samples that have one, int64 `(M,)`."""
        rows = torch.arange(len(self.x), device=self.x.device)
        started = []
        for number in range(min(self.attack.num_starts, self.attack.num_queries)):
            noise = self.rng.take(rows).fold(-1 - number).uniform(self.x[rows])
            if number % 2:
                noise = noise.round()  # where no grey noise reaches it, black and white may
            drawn = self.low + (self.high - self.low) * noise
            drawn = self.attack.threat.take(rows).masked(drawn, self.x[rows])
            reached = self.ask(rows, drawn)
            self.points[rows] = torch.where(wide(reached, drawn), drawn, self.points[rows])
            started.append(rows[reached])
            rows = rows[~reached]
            if not len(rows):
                break
        rows = torch.cat(started)
        rows = rows[self.num_left[rows] >= self.num_bisections]
        if len(rows):
            self.to_the_boundary(rows)
        return rows

    def ask(self, rows: Tensor, points: Tensor) -> Tensor:
        """Whether points, `(M, ...)`, of these samples reach the objective: bool `(M,)`; counts as queries."""
        self.num_left.scatter_add_(0, rows, torch.full_like(rows, -1))
        with torch.no_grad():
            parts = [
                self.attack.objective.take(part_rows).reached(self.model(part), self.y[part_rows])
                for part, part_rows in zip(points.split(_QUERIES_AT_ONCE), rows.split(_QUERIES_AT_ONCE), strict=True)
            ]
        return torch.cat(parts)

    def to_the_boundary(self, rows: Tensor) -> None:
        """Bisects between each sample and its point, to a new point that still reaches the objective."""
        x, far = self.x[rows], self.points[rows]
        size = self.attack.threat.take(rows).distance(far, x).to(x)
        fails, reaches = torch.zeros_like(size), torch.ones_like(size)
        near = far

        def between(share: Tensor) -> Tensor:
            if isinstance(self.attack.threat, L2):
                return x + per_sample(share, x) * (far - x)
            radius = per_sample(share * size, x)
            return torch.minimum(torch.maximum(far, x - radius), x + radius)

        for _ in range(self.num_bisections):
            middle = (fails + reaches) / 2
            points = between(middle)
            reached = self.ask(rows, points)
            fails, reaches = torch.where(reached, fails, middle), torch.where(reached, middle, reaches)
            near = torch.where(wide(reached, x), points, near)
        self.points[rows] = near
        self.nearest.see(rows, near, torch.ones_like(rows, dtype=torch.bool))

    def step(self, rows: Tensor, number: int, num_directions: int) -> None:
        """One step along the boundary: a gradient from queries, a step that stays beyond, and back to the boundary."""
        x, here, threat = self.x[rows], self.points[rows], self.attack.threat.take(rows)
        size = threat.distance(here, x).to(x)
        radius = torch.full_like(size, 0.1 * (self.high - self.low)) if number == 1 else size / self.num_pixels
        direction = threat.direction(self._gradient(rows, number, num_directions, radius))
        length = size / sqrt(number)
        moved = torch.zeros_like(rows, dtype=torch.bool)
        for _ in range(_NUM_HALVINGS):
            trying = (~moved).nonzero()[:, 0]
            if not len(trying):
                break
            tried = threat.clip(here + per_sample(length, x) * direction)[trying]
            reached = self.ask(rows[trying], tried)
            moved[trying[reached]] = True
            self.points[rows[trying[reached]]] = tried[reached]
            length = length / 2
        if bool(moved.any()):
            self.to_the_boundary(rows[moved])

    def _gradient(self, rows: Tensor, number: int, num_directions: int, radius: Tensor) -> Tensor:
        """The direction in which more of the queries around each point reach the objective: like the points."""
        decisions, steps = torch.zeros_like(radius), torch.zeros_like(self.x[rows])
        decided = torch.zeros_like(steps)
        for part, first in enumerate(range(0, num_directions, _AT_ONCE)):
            shape = len(rows), min(_AT_ONCE, num_directions - first)
            many = rows.repeat_interleave(shape[1])
            here, spread = self.points[many], per_sample(radius.repeat_interleave(shape[1]), self.x)
            noise = self._noise(self.rng.take(rows).fold(number).fold(part), here.unflatten(0, shape)).flatten(0, 1)
            noise = self.attack.threat.take(many).masked(noise, 0.0)
            noise = noise / per_sample(norms(noise).clamp_min(torch.finfo(noise.dtype).tiny), noise)
            queries = self.attack.threat.clip(here + spread * noise)
            decision = (self.ask(many, queries).to(here) * 2 - 1).unflatten(0, shape)
            step = ((queries - here) / spread).unflatten(0, shape)
            decisions, steps = decisions + decision.sum(1), steps + step.sum(1)
            decided = decided + torch.einsum("mb,mb...->m...", decision, step)
        mean = decisions / num_directions
        # Less the mean decision, which says nothing of the direction; where all agree there is nothing else.
        return torch.where(wide(mean.abs() == 1, steps), decided, decided - per_sample(mean, steps) * steps)

    def _noise(self, rng: SampleRng, like: Tensor) -> Tensor:
        return rng.normal(like) if isinstance(self.attack.threat, L2) else 2 * rng.uniform(like) - 1
