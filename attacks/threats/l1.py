"""`L1`: the absolute changes of all pixels of an image add up to at most eps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from touchstone.options import check_counts

from ..core.per_sample import per_sample, unit_length, widest
from ..core.sample_rng import SampleRng
from .ball import Ball

_LENGTH = 0.5  # in L2, of a step of length 1 along the gradient itself
_FARTHEST = 1e6  # widths of the box, of what a pixel is seen to be beyond it: an eps is lost in what is much farther


@dataclass(frozen=True, eq=False, repr=False)
class L1(Ball):
    """The absolute changes of all pixels of an image add up to at most eps.

    The projection is onto ball and box together, not onto one after the other, which would give away much of the
    ball: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021.

    Args:
        eps: radius for pixels in [0, 1]: > 0, or one per sample, float `(N,)`.
        box: lowest and highest pixel value, None for no box.
        mask: the pixels that may change, bool `(N, ...)` or `(1, ...)`, broadcastable to the images; a rectangle
            `"0:8, 0:8 of 32 x 32"` or a `.npy` or `.png` file (`read_mask`); None for all.
        pixels_per_eps: how many pixels a step along a gradient moves, for each one that eps could take across the
            box, >= 1; it says how attacks climb, not what they may do. The single steepest one would meet the box at
            once (Tramer and Boneh, "Adversarial training and robustness for multiple perturbations", 2019, section 3),
            and many give most of a step back to the projection. None for steps along the gradient itself, whose size
            is twice their length in L2; the projection then chooses the pixels. On nets trained without any attack this
            leads further.

    Raises:
        ValueError: eps is not > 0, or pixels_per_eps below 1; or the mask leaves no pixel to change.
    """

    p: ClassVar[float] = 1
    eps: float | str | Tensor
    box: tuple[float, float] | None = field(default=(0.0, 1.0), kw_only=True)
    mask: Tensor | str | None = field(default=None, kw_only=True)
    pixels_per_eps: int | None = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels_per_eps is not None:
            check_counts(self, "pixels_per_eps")

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        # D + 1 exponentials over their sum, without the last, and signs.
        noise = self.masked(rng.uniform(x), 0.0)
        extra = rng.fold(1).uniform(x.flatten(1)[:, :1])
        sizes = -torch.log1p(-noise)
        total = sizes.flatten(1).sum(1) - torch.log1p(-extra)[:, 0]
        signs = (rng.fold(2).uniform(x) < 0.5).to(x.dtype) * 2 - 1
        return self.radius(x) * signs * sizes / per_sample(total, x)

    def _direction(self, grad: Tensor) -> Tensor:
        if self.pixels_per_eps is None:
            return unit_length(grad).mul_(_LENGTH)
        size = grad.flatten(1).abs()
        num_changed = (self.pixels_per_eps * self.radius(size) / self.width).round().clamp_min(1)
        most = self.num_free(grad).to(size) if isinstance(self.mask, Tensor) else size.new_full((1, 1), size.shape[1])
        num_changed = num_changed.minimum(most)
        order = size.argsort(dim=1, descending=True, stable=True)  # so that ties do not depend on the batch
        chosen = (torch.arange(size.shape[1], device=size.device) < num_changed).to(size) / num_changed
        step = torch.zeros_like(size).scatter_(1, order, chosen.expand_as(size))
        return grad.sign() * step.reshape(grad.shape)

    def corner(self, grad: Tensor, x: Tensor) -> Tensor:
        """The point of ball and box that lies farthest along a gradient: `(N, ...)`.

        The pixels with the steepest gradients move to the edge of the box, until eps is spent; without a box the
        steepest one moves by all of it. The sum of the changes has the rounding errors of the dtype.

        Args:
            grad: float `(N, ...)`.
            x: the centres of the balls, like `grad`.
        """
        grad, pixels = self.masked(grad, 0.0).flatten(1), x.flatten(1)
        eps = self.radius(pixels)
        room = torch.zeros_like(pixels) + eps
        if self.box is not None:
            low, high = self.box
            room = torch.minimum(room, torch.where(grad > 0, high - pixels, pixels - low).clamp_min(0))
        order = grad.abs().argsort(dim=1, descending=True, stable=True)
        room = room.gather(1, order)
        moved = torch.minimum(room, (eps - (room.cumsum(1) - room)).clamp_min(0))
        return self.clip(x + (torch.zeros_like(pixels).scatter(1, order, moved) * grad.sign()).reshape(x.shape))

    def farthest(self, grad: Tensor, x: Tensor) -> Tensor:
        """`corner`: along a direction of few pixels the box would stop it before."""
        return self.corner(grad, x)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # In float64, and rounded towards x: float32's rounding, summed over all pixels, would leave the ball.
        wide = widest(x.device)
        if self.box is None:  # what was lost in x_adv, as a half is in 1e9, is not to choose the pixels
            change = (x_adv - x).to(wide)
        else:
            change = x_adv.to(wide) - x.to(wide)
            change.clamp_(-_FARTHEST * self.width, _FARTHEST * self.width)
        move = change.sign() * self._shrunk(change, x.to(wide)).reshape(x.shape)
        moved = self.clip((x.to(wide) + move).to(x.dtype))
        too_far = (moved.to(wide) - x.to(wide)).abs() > move.abs()
        return torch.where(too_far, torch.nextafter(moved, x), moved)

    def _shrunk(self, change: Tensor, x: Tensor) -> Tensor:
        """How far each pixel moves in the projection: clip(|change| - m, 0, room), `(N, D)`.

        By the Karush-Kuhn-Tucker conditions the projection has that form, with the smallest m >= 0 whose sum is no
        longer than eps. The sum is piecewise linear in m: pixel i begins to shrink at |change_i| - room_i and ends
        at |change_i|; along the sorted ends of these intervals the right piece gives m exactly.
        """
        size = change.flatten(1).abs()
        eps = self.radius(size)
        if self.box is None:  # m is at least the largest less eps; without that, an eps is not lost in the sums
            room = size = size.minimum(size - size.amax(1, keepdim=True) + eps).clamp_min(0)
        else:
            low, high = self.box
            room = torch.minimum(size, torch.where(change > 0, high - x, x - low).flatten(1).clamp_min(0))
        ends, order = torch.sort(torch.cat([size - room, size], 1), dim=1)
        slope = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, order).cumsum(1)
        # The sum at each end: at first all pixels move by their room; between two ends it falls by slope.
        falls = slope[:, :-1] * ends.diff(dim=1)
        total = room.sum(1, keepdim=True) - torch.cat([torch.zeros_like(ends[:, :1]), falls.cumsum(1)], 1)
        piece = (total > eps).sum(1, keepdim=True).clamp_min(1) - 1  # the last end at which the sum exceeds eps
        excess = (total.gather(1, piece) - eps).clamp_min(0)
        m = ends.gather(1, piece) + excess / slope.gather(1, piece).clamp_min(1)
        m = torch.where(total[:, :1] > eps, m, 0)
        moved = torch.minimum((size - m).clamp_min(0), room)
        # Where there is no float64 the running sums of thousands of pixels are off by more than a point may be.
        return moved * (eps / moved.sum(1, keepdim=True).clamp_min(torch.finfo(moved.dtype).tiny)).clamp_max(1)
