"""`L2`: the change of an image has a Euclidean length of at most eps."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.per_sample import norms, per_sample
from ..core.sample_rng import SampleRng
from .ball import Ball


@dataclass(frozen=True, eq=False, repr=False)
class L2(Ball):
    """The change of an image, as one vector, has a Euclidean length of at most eps.

    Args:
        eps: radius for pixels in [0, 1]: > 0, a string such as `"1/2"`, or one per sample, float `(N,)`.
        box: lowest and highest pixel value, None for no box.
        mask: the pixels that may change, bool `(N, ...)` or `(1, ...)`, broadcastable to the images; a rectangle
            `"0:8, 0:8 of 32 x 32"` or a `.npy` or `.png` file (`read_mask`); None for all.

    Raises:
        ValueError: eps is not > 0; or the mask leaves no pixel to change.
    """

    p: ClassVar[float] = 2
    eps: float | str | Tensor
    _: KW_ONLY
    box: tuple[float, float] | None = (0.0, 1.0)
    mask: Tensor | str | None = None

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        # A uniform direction, and a radius whose D-th power is uniform.
        radius = rng.fold(1).uniform(x.flatten(1)[:, :1]) ** (1 / self.num_free(x).to(x))
        return self.radius(x) * per_sample(radius, x) * self.direction(rng.normal(x))

    def _direction(self, grad: Tensor) -> Tensor:
        # Scaled by the largest entry first: the square of a small float32 gradient is 0.
        grad = grad / per_sample(norms(grad, float("inf")).clamp_min(torch.finfo(grad.dtype).tiny), grad)
        return grad / per_sample(norms(grad).clamp_min(torch.finfo(grad.dtype).tiny), grad)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = x_adv - x
        if self.box is None:
            scale = self.radius(x) / per_sample(norms(change).clamp_min(torch.finfo(x.dtype).tiny), x)
            return x + change * scale.clamp_max(1)
        return self.clip(x + change * per_sample(self._scale_in_box(change, x), x))

    def _scale_in_box(self, change: Tensor, x: Tensor) -> Tensor:
        """The factor s in (0, 1] such that clip(x + s * change) is the projection onto ball and box together.

        By the Karush-Kuhn-Tucker conditions the projection has that form, with the largest s whose clipped change
        is no longer than eps. Pixel i moves by s * |change_i| until it meets the box, at s_i; with the pixels sorted
        by s_i the squared length is quadratic in s between neighbours, so that the right interval gives s exactly.
        """
        low, high = self.box  # type: ignore[misc]
        size = change.flatten(1).abs()
        room = torch.where(change > 0, high - x, x - low).flatten(1).clamp_min(0)
        eps = self.radius(x.flatten(1))
        full = torch.minimum(size, room)  # how far each pixel moves for s = 1
        meets_box_at, order = torch.sort(full / size.clamp_min(torch.finfo(x.dtype).tiny), dim=1)
        stopped = full.gather(1, order).square().cumsum(1)  # squared length of the pixels that have stopped
        squares = size.gather(1, order).square()
        moving = squares.flip(1).cumsum(1).flip(1) - squares  # what the others contribute, per s squared
        length = stopped + moving * meets_box_at.square()
        # The interval whose end is the first to exceed eps; inside it, `stopped` and `moving` are the previous ones.
        interval = (length <= eps.square()).sum(1, keepdim=True)
        stopped = torch.cat([torch.zeros_like(stopped[:, :1]), stopped], 1).gather(1, interval)
        moving = torch.cat([squares.sum(1, keepdim=True), moving], 1).gather(1, interval)
        scale = ((eps.square() - stopped).clamp_min(0) / moving.clamp_min(torch.finfo(x.dtype).tiny)).sqrt()
        return torch.where(interval == size.shape[1], 1.0, scale).clamp_max(1).flatten()
