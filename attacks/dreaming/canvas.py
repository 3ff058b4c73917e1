"""`Canvas`: any picture, climbed along the gradient itself, which may be smoothed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..core.per_sample import unit_length
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from .smoothing import blur


@dataclass(frozen=True, kw_only=True)
class Canvas(Threat):
    """A threat that allows everything inside its box: `ascend` then is plain gradient ascent.

    Args:
        box: the smallest and the largest value; None for no bounds.
        smoothing: standard deviation in pixels of the Gaussian that smooths the gradient, >= 0; 0 for none.
    """

    eps: float | Tensor = float("inf")
    box: tuple[float, float] | None = (0.0, 1.0)
    smoothing: float = 0.0

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        """Uniform noise over the box."""
        low, high = self.box or (0.0, 1.0)
        return low + (high - low) * rng.uniform(x)

    def direction(self, grad: Tensor) -> Tensor:
        """The gradient, scaled to a root mean square of 1; 0 for 0."""
        grad = blur(grad, self.smoothing) if self.smoothing else grad
        return unit_length(grad).mul_(math.sqrt(math.prod(grad.shape[1:])))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return x_adv if self.box is None else x_adv.clamp(*self.box)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The largest change."""
        return (x_adv - x).abs().flatten(1).amax(1)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        inside = x_adv.isfinite() if self.box is None else (x_adv >= self.box[0]) & (x_adv <= self.box[1])
        return inside.flatten(1).all(1)

    def check_input(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(f"pictures must be floats, got {x.dtype}; of bytes take `x / 255`")
        if len(x) and not bool(self.contains(x, x).all()):
            pixels = "finite" if self.box is None else f"pixels in [{self.box[0]:g}, {self.box[1]:g}]"
            raise ValueError(f"pictures must be {pixels}, got values from {float(x.min()):.3g} to {float(x.max()):.3g}")
