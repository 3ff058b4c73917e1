"""`FirstClimb`: what the first climb of a cascade shows of each sample, besides where it ends."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.ascend import Measure
from ..core.past_saturation import past_saturation
from ..core.rounding import rounding
from ..parts.jumps import Jumps


class FirstClimb:
    """A look at the points that the first climb passes.

    Args:
        x: the samples, float `(N, ...)`.

    Attributes:
        goes_on: whether it has not ended yet; what follows is known once it has.
        jumps: whose gain changes beyond what its gradients explain, bool `(N,)`.
        bends: whose gain rose by far less than its gradients promised, bool `(N,)`; along gradients that see units at
            rest also those to whom these promise too much.
        saturates: who drives bounded units of some layer out to their flat ends, bool `(N,)`.
        first_look: the points where all were looked at first, `(N, ...)`, their gains, `(N,)`, and gradients; None
            where these are not the model's own.
    """

    def __init__(self, x: Tensor) -> None:
        self.goes_on = True
        self.jumps = self.bends = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.saturates = torch.zeros_like(self.jumps)
        self.first_look: tuple[Tensor, Tensor, Tensor] | None = None
        self._changes, self._is_plain = Jumps(x), True
        self._rounding = x.new_zeros(2, len(x))  # of the margin, wherever it was measured: the sum, the number

    def watched(self, measure: Measure, rows: Tensor, *, plain: bool) -> Measure:
        """The same gain, at whose gradients it looks; `plain` says whether they are the model's own."""
        self._is_plain = plain
        return self._changes.watched(measure, rows)

    def see_units(self, rows: Tensor, units: past_saturation) -> None:
        """Takes in how far the samples, int64 `(M,)`, have driven bounded units."""
        if units.widest is not None:
            self.saturates[rows] |= units.widest > 1

    def see_logits(self, rows: Tensor, logits: Tensor) -> None:
        """Takes in by how much the logits of the samples, `(M, C)`, may change by rounding alone."""
        self._rounding[:, rows] += torch.stack([rounding(logits), torch.ones_like(logits[:, 0])])

    def rounding(self) -> Tensor:
        """How much the margin of each sample may change by rounding alone, `(N,)`: the mean over the climb."""
        return self._rounding[0] / self._rounding[1].clamp_min(1)

    def end(self, scale: Tensor) -> None:
        """Draws the conclusions; `scale` is what jumps must be seen beside, `(N,)` (`Jumps.found`)."""
        self.goes_on = False
        self.jumps, self.bends = self._changes.found(scale, self.rounding()), self._changes.bent()
        self.first_look = self._changes.first if self._is_plain else None
        del self._changes
