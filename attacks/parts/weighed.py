"""`Weighed`: the smallest change by descents that weigh it against the margin, what `CarliniWagner` and `EAD` share.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, section V-C (the search over
the weight).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_flags, check_positive

from ..core.attack import Attack
from ..core.sample_rng import SampleRng
from .minimal import Nearest, Progress, with_margin

Step = Callable[[Tensor, int], tuple[Tensor, Tensor, "Tensor | None", Tensor]]
"""`step(rows, number)`: goes one step with samples `(M,)`; their points `(M, ...)`, whether these reach the objective,
what they are ranked by (None for the distance in the threat's norm), and the loss that falls, `(M,)` each."""


class Weighed(Attack, ABC):
    """Minimises the change plus a weighted hinge on the margin; a subclass is a frozen dataclass and defines `descent`.

    Its fields, beside those of every attack: `num_steps` of each of `num_rounds` descents, each with a weight of its
    own; `step_size` and `first_weight`, > 0; `confidence`, the margin that a point must have to count as found; and
    `minimal`, whether to search on after a point inside the threat is found.
    """

    flat_when_reached = True
    num_steps: int
    num_rounds: int
    step_size: float
    first_weight: float
    confidence: float
    minimal: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_rounds")
        check_flags(self, "minimal")
        check_positive(self, "step_size", "first_weight")
        check_positive(self, "confidence", or_zero=True)
        with_margin(self.objective)

    @abstractmethod
    def descent(self, model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Step:
        """A descent from the samples with the margin weighted by `weight`, float `(N,)`; the rest as in `perturb`."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        nearest, search = Nearest(self.threat, x, minimal=self.minimal), WeightSearch(x, self.first_weight)
        for _ in range(self.num_rounds):
            found = self._found(self.descent(model, x, y, search.weight), nearest)
            if not self.minimal and bool(nearest.inside.all()):
                break
            search.learn(found)
        return nearest.result()

    def _found(self, step: Step, nearest: Nearest) -> Tensor:
        """For which samples a descent found something, bool `(N,)`; shows `nearest` all of it."""
        found, progress = torch.zeros_like(nearest.inside), Progress(nearest.size, self.num_steps)
        rows = nearest.wanted(torch.arange(len(found), device=found.device))
        for number in range(self.num_steps):
            if not len(rows):
                break
            points, reached, size, loss = step(rows, number)
            nearest.see(rows, points, reached, size)
            found[rows] |= reached
            rows = nearest.wanted(progress.still_falling(rows, loss, number), number)
        return found


class WeightSearch:
    """For each sample the weight of the objective beside the distance: tenfold until one succeeds, then bisected.

    Attributes:
        weight: what to try next, float `(N,)`.
    """

    def __init__(self, x: Tensor, first: float) -> None:
        self.weight = torch.full((len(x),), first, dtype=x.dtype, device=x.device)
        self._failed, self._succeeded = torch.zeros_like(self.weight), torch.full_like(self.weight, torch.inf)

    def learn(self, succeeded: Tensor) -> None:
        """Takes in which samples succeeded with their weight, bool `(N,)`, and chooses the next ones."""
        self._succeeded = torch.where(succeeded, self.weight, self._succeeded)
        self._failed = torch.where(succeeded, self._failed, self.weight)
        middle = (self._failed + self._succeeded) / 2
        self.weight = torch.where(self._succeeded.isinf(), 10 * self.weight, middle)
