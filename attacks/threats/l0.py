"""`L0`: at most eps pixels may change, by any amount."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..core.per_sample import norms, per_sample, widest
from ..core.sample_rng import SampleRng
from .ball import Ball


@dataclass(frozen=True, eq=False, repr=False)
class L0(Ball):
    """At most eps pixels may change, by any amount inside the box.

    A pixel is a position: all channels of one, the second axis of `(N, C, ...)`, count once. In `(N, D)` each of the
    D numbers is a pixel of its own.

    Source: Croce and Hein, "Sparse and imperceivable adversarial attacks", 2019, section 4 (PGD_0), whose projection
    this is; the steps differ (`direction`).

    Args:
        eps: how many pixels may change: a whole number >= 1, or one per sample, `(N,)`.
        box: lowest and highest pixel value, None for no box.
        mask: the pixels that may change, bool `(N, ...)` or `(1, ...)`, broadcastable to the images; a rectangle
            `"0:8, 0:8 of 32 x 32"` or a `.npy` or `.png` file (`read_mask`); None for all.

    Raises:
        ValueError: eps is not a whole number >= 1; or the mask leaves no pixel to change.
    """

    p: ClassVar[float] = 0
    whole_eps: ClassVar[bool] = True
    eps: float | str | Tensor
    box: tuple[float, float] | None = field(default=(0.0, 1.0), kw_only=True)
    mask: Tensor | str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.eps, Tensor) and not self.eps.is_floating_point():
            object.__setattr__(self, "eps", self.eps.to(widest(self.eps.device)))
        super().__post_init__()
        eps = torch.as_tensor(self.eps)
        if bool((eps != eps.round()).any()):
            broken = float(eps[eps != eps.round()].flatten()[0])
            raise ValueError(f"L0(eps=...) must be a whole number of pixels >= 1, got {broken:g}")

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        # The pixels with the smallest of independent numbers, and any value of the box in each.
        score = as_positions(self.masked(rng.uniform(x), 2.0)).amin(1)
        low, high = (-1.0, 1.0) if self.box is None else self.box
        value = low + (high - low) * rng.fold(1).uniform(x)
        chosen = as_pixels(self._largest(-score, x), x)
        return self.masked(torch.where(chosen, value if self.box is None else value - x, 0), 0.0)

    def _direction(self, grad: Tensor) -> Tensor:
        """The gradient itself, its steepest entry scaled to the width of the box.

        How far a pixel moves is free. A step of eps takes the steepest pixels across the box, and the projection keeps
        eps of them; the smaller steps that follow move the less steep ones by degrees.
        """
        steepest = norms(grad, float("inf")).clamp_min(torch.finfo(grad.dtype).tiny)
        return self.width * (grad / per_sample(steepest, grad))

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # A pixel that may change goes to the box's nearest point; what that saves of the squared distance to x_adv,
        # (x_adv - x)^2 - (x_adv - inside)^2, is what it is worth.
        inside = self.clip(x_adv)
        saved = (inside - x) * (2 * x_adv - inside - x)
        return torch.where(as_pixels(self._largest(as_positions(saved).sum(1), x), x), inside, x)

    def _largest(self, worth: Tensor, x: Tensor) -> Tensor:
        """Which eps pixels of each sample are worth most, of equal ones the first: bool like `worth`, `(N, P)`."""
        order = worth.sort(dim=1, descending=True, stable=True).indices
        chosen = torch.arange(worth.shape[1], device=x.device) < self.radius(x.flatten(1))
        return torch.zeros_like(worth, dtype=torch.bool).scatter_(1, order, chosen.expand(len(worth), -1))

    def _length(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return as_positions(x_adv != x).any(1).sum(1).to(x.dtype)

    def _rounding(self, x_adv: Tensor, x: Tensor) -> float:
        return 0.0  # a count has none


def as_positions(x: Tensor) -> Tensor:
    """The samples by what L0 counts as pixels, all channels of one position together.

    Args:
        x: `(N, C, ...)`, or `(N, D)`, where each number is a pixel of its own.

    Returns:
        `(N, C, P)`, P pixels of C channels; of `(N, D)` it is `(N, 1, D)`.
    """
    return x.flatten(2) if x.ndim > 2 else x[:, None]


def as_pixels(values: Tensor, x: Tensor) -> Tensor:
    """One value for each pixel, the same in all channels: the way back from `as_positions`.

    Args:
        values: a number or flag for each pixel, `(N, P)`.
        x: the samples, `(N, C, ...)` or `(N, D)`.

    Returns:
        `(N, 1, ...)` or `(N, D)`, of the dtype of `values`, which goes with `x`.
    """
    return values if x.ndim == 2 else values.reshape(len(x), 1, *x.shape[2:])
