"""`Probing`: the samples of an evaluation that are probed for gradient masking, and what probes ask of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.checks import are_broken
from ..core.rounding import rounding
from ..core.sample_rng import SampleRng
from ..objectives.losses import Margin
from .forwards import Forwards
from .meter import Cost, metered
from .running import naming


class Probing:
    """Samples of which some are attacked or moved once more, and what that costs.

    Attributes:
        cost: what the probes have passed through the model, beside `look`.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, prediction: Tensor, rng: SampleRng, look: Forwards
    ) -> None:
        self.model, self.x, self.y, self.prediction, self.rng, self.look = model, x, y, prediction, rng, look
        self._look_far = look.unchecked()
        self.cost = Cost()

    def in_parts(self, rows: Tensor, work: Callable[[Tensor], int]) -> int:
        """The sum of what `work` finds of as many rows at a time as fit into memory: how many of these show a sign."""
        found = 0

        def add(part_of: slice) -> None:
            nonlocal found
            found += work(rows[part_of])

        self.look.in_parts(len(rows), add)
        return found

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What the model is asked inside is in the cost."""
        with metered(self.model) as meter:
            try:
                yield
            finally:
                self.cost += meter.cost(0.0)

    def slope(self, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The margin by which the samples are wrong, `(N,)`, its gradient, like `points`, and its rounding, `(N,)`."""
        leaf = points.clone().requires_grad_()
        logits = self.model(leaf)
        gain = Margin()(logits, y).to(points.dtype)
        rounded = rounding(logits.detach().to(points.dtype))
        return gain.detach(), torch.autograd.grad(gain.sum(), leaf)[0], rounded

    def is_differentiable(self) -> bool:
        """Whether the logits depend on the samples by a path that has a gradient, if only one of zeros."""
        with self.counted():
            some = self.x[: min(2, self.look.batch_size)]  # of two, since a norm over the batch refuses one
            return self.model(some.clone().requires_grad_()).requires_grad

    def errs(self, points: Tensor, rows: Tensor, where: str) -> Tensor:
        """Whether the model errs at points of so many rows, bool `(M,)`: not where its logits are no numbers.

        Beyond the threat it may give such, which is no error of a probe.
        """
        logits = self._look_far(points, self.rng.sample_ids[rows], where)
        return (logits.argmax(1) != self.y[rows]) & ~are_broken(logits)

    def num_standing(
        self, name: str, attack: Attack, rows: Tensor, *, take: bool = True, rng: SampleRng | None = None
    ) -> int:
        """How many of the samples are right after another attack; where logits are not finite it has turned them.

        Args:
            name: of the attack that is in doubt.
            attack: the other one.
            rows: of the samples, int64 `(M,)`.
            take: whether it holds values for each of the samples.
            rng: its noise; None for that of the evaluation.
        """
        noise, where = rng or self.rng, f"after a probe of attack {name!r}"

        def count_standing(some: Tensor) -> int:
            part, x, y = attack.take(some) if take else attack, self.x[some].clone(), self.y[some].clone()
            with self.counted():
                x_adv = naming(name, part, self.model, x, y, rng=noise.take(some))
            logits = self._look_far(x_adv.detach(), self.rng.sample_ids[some], where)
            return int(((logits.argmax(1) == self.y[some]) & ~are_broken(logits)).sum())

        return self.in_parts(rows, count_standing)
