"""The shortest move inside the box that brings a linear function to zero: what `FAB` is made of.

Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", 2020, where
it is the projection onto the intersection of a hyperplane and the box.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.per_sample import per_sample


def to_hyperplane(x: Tensor, gap: Tensor, slope: Tensor, *, p: float, box: tuple[float, float] | None) -> Tensor:
    """The shortest move `m` with `gap + <slope, m> = 0` and `x + m` inside the box; or else the one that gets nearest.

    Args:
        x: points of the box, `(N, ...)`.
        gap: the linear function at `x`, `(N,)`.
        slope: its gradient, `(N, ...)`.
        p: the norm by which the move is short: 1, 2 or infinity.
        box: lowest and highest pixel value; None for no box.

    Returns:
        The moves, `(N, ...)`.
    """
    downhill = -(slope * per_sample(torch.where(gap < 0, -1.0, 1.0), x))
    falls, gap = downhill.flatten(1).abs(), gap.abs()[:, None]  # by how much the gap falls per unit of each pixel
    steepest = falls.amax(1, keepdim=True).clamp_min(torch.finfo(falls.dtype).tiny)
    falls, gap = falls / steepest, gap / steepest  # the square of a small float32 number is 0, of a large one infinite
    low, high = box or (-torch.inf, torch.inf)
    room = torch.where(downhill > 0, high - x, x - low).flatten(1).clamp_min(0)
    room = torch.where(falls > 0, room, 0)
    size = _steepest_first(gap, falls, room) if p == 1 else _together(gap, falls, room, speed=falls if p == 2 else None)
    return downhill.sign() * size.reshape(x.shape)


def _steepest_first(gap: Tensor, falls: Tensor, room: Tensor) -> Tensor:
    """L1: the pixel with the steepest fall moves as far as it can, then the next, until the gap is closed."""
    order = falls.argsort(dim=1, descending=True)
    falls, room = falls.gather(1, order), room.gather(1, order)
    closed = (falls * room).nan_to_num(nan=0.0, posinf=torch.inf).cumsum(1)
    left = gap - torch.cat([torch.zeros_like(gap), closed[:, :-1]], 1)
    size = torch.minimum((left / falls.clamp_min(torch.finfo(falls.dtype).tiny)).clamp_min(0), room)
    return torch.zeros_like(size).scatter(1, order, size)


def _together(gap: Tensor, falls: Tensor, room: Tensor, speed: Tensor | None) -> Tensor:
    """L2 and Linf: pixel i moves by min(t * speed_i, room_i), with the t that closes the gap.

    By the Karush-Kuhn-Tucker conditions speed is the pixel's fall in L2, and one for all in Linf. What has been closed
    is piecewise linear in t, and bends where a pixel meets the box; along the sorted bends the right piece gives t.
    """
    speed = torch.ones_like(falls) if speed is None else speed
    meets_box_at, order = torch.sort(room / speed.clamp_min(torch.finfo(room.dtype).tiny), dim=1)
    stopped = (falls * room).nan_to_num(nan=0.0, posinf=torch.inf).gather(1, order).cumsum(1)
    rates = (falls * speed).gather(1, order)
    moving = rates.flip(1).cumsum(1).flip(1)  # of this pixel and all that stop later
    closed = stopped + (moving - rates) * meets_box_at
    piece = (closed < gap).sum(1, keepdim=True)
    stopped = torch.cat([torch.zeros_like(gap), stopped], 1).gather(1, piece)
    moving = torch.cat([moving, torch.zeros_like(gap)], 1).gather(1, piece)
    t = (gap - stopped).clamp_min(0) / moving  # by zero where all have met the box before the gap is closed
    t = torch.where(moving > 0, t, torch.inf)
    return torch.minimum((t * speed).nan_to_num(nan=0.0, posinf=torch.inf), room)
