"""`Jumps`: whether a gain changes along a climb where its gradients do not say so, or not where they do.

Units that are switched off by the rank of others or by rounding make a model jump between pieces each of which is
smooth: its gradients are those of its forward and agree with each other, and do not see what lies beyond a jump. Xiao
et al., "Enhancing adversarial defense by k-winners-take-all", 2020, took that for robustness; Tramer et al., "On
adaptive attacks to adversarial example defenses", 2020, section 4, showed that it is none.

By the trapezoidal rule, half the sum of the gradients at two points times the change between them is how much a gain
changes that does not jump. Where it bends little between them, as along most models' steps, the rule errs by less than
what the pixels contribute.

Where the gain bends far more than that, as along large changes of few pixels on nets trained without any attack, it
rises by a small part of what the gradients promised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.ascend import Measure

_LEAST = 0.05  # unexplained change below this share of the scale is taken for rounding
_KEPT = 0.25  # of what the gradients promise, what a gain that does not bend rises by


class Jumps:
    """The changes of the samples' gains that their gradients explain, and those that they do not.

    Attributes:
        first: the points where all of them were looked at first, `(N, ...)`, their gains, `(N,)`, and gradients.
    """

    def __init__(self, x: Tensor) -> None:
        self._points, self._grads = x.clone(), torch.zeros_like(x)
        self._gains = x.new_full((len(x),), torch.nan)
        self._explained, self._beyond = torch.zeros_like(self._gains), torch.zeros_like(self._gains)
        self._num_changes = torch.zeros_like(self._gains)
        self._risen, self._promised = torch.zeros_like(self._gains), torch.zeros_like(self._gains)
        self.first: tuple[Tensor, Tensor, Tensor] | None = None

    def watched(self, measure: Measure, rows: Tensor) -> Measure:
        """The same gain, whose changes are looked at wherever its gradient is taken."""

        def watch(points: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            gain, reached = measure(points, part)
            here, seen = points.detach(), gain.detach()

            def see(grad: Tensor | None) -> None:
                if grad is not None:  # of a layer that has none, as quantised ones: whoever asked for it says so
                    self._see(rows[part], here, seen, grad.detach())

            points.register_hook(see)
            return gain, reached

        return watch

    def found(self, scale: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
        """Whose gain has changed more beyond what its gradients explain than by it: bool `(N,)`.

        Args:
            scale: what jumps must be seen beside, such as the first margin, >= 0, float `(N,)`.
            rounding: the part of each change that is taken for rounding (`rounding`), >= 0, float `(N,)`.
        """
        beyond = self._beyond - self._num_changes * rounding
        return (beyond > self._explained) & (beyond >= _LEAST * scale)

    def bent(self) -> Tensor:
        """Whose gain has risen by less than a quarter of what the gradients promised, step by step: bool `(N,)`."""
        return self._risen < _KEPT * self._promised

    def _see(self, which: Tensor, points: Tensor, gains: Tensor, grads: Tensor) -> None:
        move, slopes = points - self._points[which], grads / 2 + self._grads[which] / 2
        parts = (slopes * move).nan_to_num(0, 0, 0).flatten(1)
        promised = (self._grads[which] * move).nan_to_num(0, 0, 0).flatten(1).sum(1)
        change = gains - self._gains[which]
        goes_on = change.isfinite()  # not from the first point, nor from or to one without a gain
        self._num_changes[which] += goes_on
        self._explained[which] += torch.where(goes_on, parts.abs().sum(1), 0)
        self._beyond[which] += torch.where(goes_on, (change - parts.sum(1)).abs(), 0)
        self._risen[which] += torch.where(goes_on, change, 0)
        self._promised[which] += torch.where(goes_on, promised, 0)
        self._points[which], self._grads[which], self._gains[which] = points, grads, gains
        if self.first is None:
            self.first = self._points.clone(), self._gains.clone(), self._grads.clone()
