"""`L1`: the absolute changes of all pixels of an image add up to at most eps."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.per_sample import per_sample, widest
from ..core.sample_rng import SampleRng
from .ball import Ball

_STEP_PIXELS = 3
"""A step changes this many times the pixels that eps could turn from one end of the box to the other: the single
steepest one would meet the box at once, and a share of all pixels is too many in a large picture. (Tramer and Boneh,
"Adversarial training and robustness for multiple perturbations", 2019, section 3, take a share.)"""
_STEP_SHARE = 0.05
"""Without a box, the share of the pixels that a step changes."""


@dataclass(frozen=True, eq=False, repr=False)
class L1(Ball):
    """The absolute changes of all pixels of an image add up to at most eps.

    The projection is onto ball and box together, not onto one after the other, which would give away much of the
    ball: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021.

    Args:
        eps: radius for pixels in [0, 1]: > 0, or one per sample, float `(N,)`.
        box: lowest and highest pixel value, None for no box.
        mask: the pixels that may change, bool `(N, ...)` or `(1, ...)`, broadcastable to the images; None for all.

    Raises:
        ValueError: eps is not > 0; or the mask leaves no pixel to change.
    """

    p: ClassVar[float] = 1
    eps: float | str | Tensor
    _: KW_ONLY
    box: tuple[float, float] | None = (0.0, 1.0)
    mask: Tensor | None = None

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        # D + 1 exponentials over their sum, without the last, and signs.
        noise = self.masked(rng.uniform(x), 0.0)
        extra = rng.fold(1).uniform(x.flatten(1)[:, :1])
        sizes = -torch.log1p(-noise)
        total = sizes.flatten(1).sum(1) - torch.log1p(-extra)[:, 0]
        signs = (rng.fold(2).uniform(x) < 0.5).to(x.dtype) * 2 - 1
        return self.radius(x) * signs * sizes / per_sample(total, x)

    def _direction(self, grad: Tensor) -> Tensor:
        size = grad.flatten(1).abs()
        num_changed = self._num_changed(grad)
        most = int(num_changed.max())
        chosen = (torch.arange(most, device=num_changed.device) < num_changed) / num_changed
        step = torch.zeros_like(size).scatter_(1, size.topk(most, dim=1).indices, chosen.to(size).expand(len(size), -1))
        return grad.sign() * step.reshape(grad.shape)

    def _num_changed(self, x: Tensor) -> Tensor:
        """How many pixels of each sample a step changes: float `(N, 1)` or `(1, 1)`."""
        free = self.num_free(x)
        if self.box is None:
            return (_STEP_SHARE * free).round().clamp_min(1)
        eps = torch.as_tensor(self.eps, device=free.device).reshape(-1, 1)
        return torch.minimum((_STEP_PIXELS * eps / (self.box[1] - self.box[0])).round().clamp_min(1), free)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # In float64, and rounded towards x: float32's rounding, summed over all pixels, would leave the ball.
        wide = widest(x.device)
        change = x_adv.to(wide) - x.to(wide)
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
        room = size
        if self.box is not None:
            low, high = self.box
            room = torch.minimum(size, torch.where(change > 0, high - x, x - low).flatten(1).clamp_min(0))
        eps = self.radius(x.flatten(1))
        ends, order = torch.sort(torch.cat([size - room, size], 1), dim=1)
        slope = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, order).cumsum(1)
        # The sum at each end: at first all pixels move by their room; between two ends it falls by slope.
        falls = slope[:, :-1] * ends.diff(dim=1)
        total = room.sum(1, keepdim=True) - torch.cat([torch.zeros_like(ends[:, :1]), falls.cumsum(1)], 1)
        piece = (total > eps).sum(1, keepdim=True).clamp_min(1) - 1  # the last end at which the sum exceeds eps
        excess = (total.gather(1, piece) - eps).clamp_min(0)
        m = ends.gather(1, piece) + excess / slope.gather(1, piece).clamp_min(1)
        m = torch.where(total[:, :1] > eps, m, 0)
        return torch.minimum((size - m).clamp_min(0), room)
