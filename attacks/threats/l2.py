"""`L2`: the change of an image has a Euclidean length of at most eps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..core.per_sample import answers_at_once, lengths, per_sample, unit_length
from ..core.sample_rng import SampleRng
from .ball import Ball

_MOST_ROUNDS = 12
"""Rounds to find the pixels that meet the box; 4 to 6 are enough for images."""

_FARTHEST = 1e15
"""How far beyond the box a pixel is seen to be: the squares of what is farther, added up, are infinite in float32."""


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
    box: tuple[float, float] | None = field(default=(0.0, 1.0), kw_only=True)
    mask: Tensor | str | None = field(default=None, kw_only=True)

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        # A uniform direction, and a radius whose D-th power is uniform.
        radius = rng.fold(1).uniform(x.flatten(1)[:, :1]) ** (1 / self.num_free(x).to(x))
        return self.radius(x) * per_sample(radius, x) * self.direction(rng.normal(x))

    def _direction(self, grad: Tensor) -> Tensor:
        return unit_length(grad)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = x_adv - x
        if self.box is None:
            scale = self.radius(x) / per_sample(lengths(change).clamp_min(torch.finfo(x.dtype).tiny), x)
            return x + change * scale.clamp_max(1)
        change.clamp_(-_FARTHEST, _FARTHEST)
        scale = self._scale_in_box(change, self.clip(x_adv).sub_(x)).reshape(-1, *[1] * (x.ndim - 1))
        return torch.addcmul(x, change, scale).clamp_(*self.box)

    def _scale_in_box(self, change: Tensor, room: Tensor) -> Tensor:
        """The factor s in (0, 1] such that clip(x + s * change) is the projection onto ball and box together.

        By the Karush-Kuhn-Tucker conditions the projection has that form, with the largest s whose clipped change
        is no longer than eps: pixel i moves by s * |change_i| until it meets the box. With the pixels known that have
        met it, s has a closed form; with those of a smaller s it comes out too small, never too large. So it grows,
        and with it the pixels that have met the box, until they are the right ones: after a few rounds, without
        sorting any.

        Args:
            change: how far each pixel is to go, `(N, ...)`.
            room: how far it gets before it meets the box, `(N, ...)`; overwritten.
        """
        # In place, and with numbers for booleans: a CPU takes most of its time for fresh memory and for those.
        change, room, tiny = change.flatten(1), room.flatten(1), torch.finfo(change.dtype).tiny
        squares, meets_at, stopped_squares = change.square(), room / change, room.square_()  # 0 / 0 counts as neither
        eps, part = self.radius(change).reshape(-1).clamp_max(_FARTHEST).square(), torch.empty_like(change)
        scale = (eps / squares.sum(1).clamp_min(tiny)).sqrt().clamp_max(1)
        for _ in range(_MOST_ROUNDS):
            moving = torch.gt(meets_at, scale[:, None], out=part).mul_(squares).sum(1)
            stopped = torch.le(meets_at, scale[:, None], out=part).mul_(stopped_squares).sum(1)
            left = (eps - stopped).clamp_min(0)
            before, scale = scale, (left / moving.clamp_min(tiny)).sqrt().clamp_max(1).maximum(scale)
            # Elsewhere all rounds cost less than asking.
            if answers_at_once(part.device) and torch.equal(before, scale):
                break
        return scale
