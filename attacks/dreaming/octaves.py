"""`octave_sizes`: the sizes at which a dream is dreamt, from coarse to fine (Mordvintsev et al., "DeepDream", 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.out_of_memory import is_out_of_memory

SMALLEST = 8  # pixels along an axis


def octave_sizes(size: tuple[int, int], num_octaves: int, scale: float) -> list[tuple[int, int]]:
    """Heights and widths, each `scale` times the one before, the last of them `size`; none below the smallest."""
    sizes: list[tuple[int, int]] = []
    least = (min(SMALLEST, size[0]), min(SMALLEST, size[1]))
    for octave in range(num_octaves):
        height, width = (max(small, round(n / scale**octave)) for n, small in zip(size, least, strict=True))
        sizes.append((height, width))
        if sizes[-1] == least:  # however many octaves are wanted
            break
    return list(dict.fromkeys(reversed(sizes)))


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures `(N, C, H, W)` at another height and width."""
    if tuple(pictures.shape[2:]) == size:
        return pictures
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False, antialias=True)


@contextmanager
def octave_is_named(model: nn.Module, size: tuple[int, int]) -> Iterator[None]:
    """Inside, an error of the model's says that it is of an octave.

    Raises:
        ValueError: the model does not take pictures of this size.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"dream(num_octaves=...): {type(model).__name__} does not take the octave of {size[0]} x {size[1]} pixels "
            f"up to this layer; take 1 octave, or a layer before the one that wants a size ({error})"
        ) from error
