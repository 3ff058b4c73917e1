"""`wrong_shape_is_said`: a net that does not take images of this shape says which it takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.out_of_memory import is_out_of_memory
from touchstone.nets.preset import preset_of

from .own_precision import in_own_precision

SIZES = (224, 256, 299, 384, 512, 32, 28, 64, 96, 128, 16, 8)
"""Sides of pictures that nets are made for, those of ImageNet first."""
ERRORS = (RuntimeError, AssertionError, ValueError)
"""What nets raise whose layers do not fit."""


@contextmanager
def wrong_shape_is_said(net: nn.Module, x: Tensor, *, remedy: str) -> Iterator[None]:
    """Inside, an error of the net's on images `(N, C, H, W)` names channels or a size that it takes, where it does.

    Args:
        net: pixels to logits.
        x: what it is given inside.
        remedy: what to do about their size, with `{side}` for the side of pictures that it takes.

    Raises:
        ValueError: the net takes grey images and not these in colour, or the other way round; or pictures of another
            size. Any other error stays as it was.
    """
    try:
        yield
    except ERRORS as error:
        if x.ndim != 4 or is_out_of_memory(error) or _takes(net, x, *x.shape[1:]):
            raise
        reason = str(error).splitlines()[0]
        given, other = x.shape[1], {1: 3, 3: 1}.get(x.shape[1])
        side = _side_that_fits(net, x, given)
        if other and (_takes(net, x, other, *x.shape[2:]) or side is None and _side_that_fits(net, x, other)):
            raise ValueError(
                f"the images have {given} channels and the net takes {other}: convert them, as ImagesDataModule does "
                f"with `channels: {other}` ({reason})"
            ) from error
        if side is None:  # then something else is wrong
            raise
        if "image_size" in inspect.signature(type(net)).parameters and x.shape[2] == x.shape[3]:
            remedy = f"make it with image_size={x.shape[2]}, or {remedy}"
        raise ValueError(
            f"{type(net).__name__} does not take pictures of {x.shape[2]} x {x.shape[3]} pixels, but of {side} x "
            f"{side}: {remedy.format(side=side)} ({reason})"
        ) from error


def _side_that_fits(net: nn.Module, x: Tensor, channels: int) -> int | None:
    """The side of a square picture that the net takes: of its weights, else the first of the usual ones."""
    preset = preset_of(net)
    for side in (*([preset.image_size] if preset else []), *SIZES):
        if _takes(net, x, channels, side, side):
            return side
    return None


def _takes(net: nn.Module, x: Tensor, *shape: int) -> bool:
    try:
        with buffers_kept(net), frozen_eval(net), torch.no_grad():
            net(in_own_precision(net, x.new_zeros(1, *shape)))
    except ERRORS:
        return False
    return True
