"""`Linf`: every pixel may change by at most eps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..core.eps import check_width
from ..core.sample_rng import SampleRng
from .ball import Ball


@dataclass(frozen=True, eq=False, repr=False)
class Linf(Ball):
    """Every pixel may change by at most eps.

    Args:
        eps: radius in pixels of [0, 1]: > 0, a string such as `"8/255"`, or one per sample, float `(N,)`.
        box: lowest and highest pixel value, None for no box.
        mask: the pixels that may change, bool `(N, ...)` or `(1, ...)`, broadcastable to the images; a rectangle
            `"0:8, 0:8 of 32 x 32"` or a `.npy` or `.png` file (`read_mask`); None for all.

    Raises:
        ValueError: eps is not > 0, or larger than the box; or the mask leaves no pixel to change.
    """

    p: ClassVar[float] = float("inf")
    eps: float | str | Tensor
    box: tuple[float, float] | None = field(default=(0.0, 1.0), kw_only=True)
    mask: Tensor | str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = float(self.eps.max()) if isinstance(self.eps, Tensor) and self.eps.numel() else self.eps
        if self.box is not None and not isinstance(largest, Tensor | str):
            check_width(largest, self.width, "Linf(eps=...)")

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        return self.radius(x) * (2 * rng.uniform(x) - 1)

    def _direction(self, grad: Tensor) -> Tensor:
        return grad.sign()

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        eps = self.radius(x)
        return self.clip(torch.clamp(x_adv, x - eps, x + eps))
