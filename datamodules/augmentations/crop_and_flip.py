"""`RandomCrop` and `RandomFlip`: each image of a batch moved and mirrored by itself, all at once."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_between, check_choice, check_counts


class RandomCrop(nn.Module):
    """Moves each image by up to `padding` pixels in both directions.

    Args:
        padding: >= 1, and smaller than both sides of the image, of which a part always stays.
        mode: what comes in at the border: `"zeros"`, or `"reflect"` for the image mirrored there.

    Raises:
        ValueError: a value is outside its range; that of `padding` is known at the first images.

    Shape:
        any dtype `(N, C, H, W)` to the same.
    """

    def __init__(self, padding: int = 4, *, mode: Literal["zeros", "reflect"] = "zeros") -> None:
        super().__init__()
        check_counts(self, padding=padding)
        check_choice("RandomCrop(mode=...)", mode, ("zeros", "reflect"))
        self.padding, self.mode = padding, mode

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if self.padding >= min(height, width):
            raise ValueError(
                f"RandomCrop(padding=...) must be < {min(height, width)}, got {self.padding}: "
                f"the images have {height} x {width} pixels"
            )
        rows, columns = self._places(x, height)[:, :, None], self._places(x, width)[:, None]
        if self.mode == "reflect":
            rows, columns = _mirrored(rows, height), _mirrored(columns, width)
        else:
            x = F.pad(x, [self.padding] * 4)
            rows, columns = rows + self.padding, columns + self.padding
        image = torch.arange(len(x), device=x.device)[:, None, None]
        return x[image, :, rows, columns].permute(0, 3, 1, 2)

    def _places(self, x: Tensor, length: int) -> Tensor:
        """For each image the pixels to take along a side, `(N, length)`; some lie outside."""
        moved = torch.randint(-self.padding, self.padding + 1, (len(x), 1), device=x.device)
        return moved + torch.arange(length, device=x.device)


class RandomFlip(nn.Module):
    """Mirrors each image left to right with a probability.

    Args:
        probability: in [0, 1].

    Raises:
        ValueError: it is outside its range.

    Shape:
        any dtype `(N, C, H, W)` to the same.
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        check_between("RandomFlip(probability=...)", probability, 0, 1)
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        is_mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < self.probability
        return torch.where(is_mirrored, x.flip(3), x)


def _mirrored(places: Tensor, length: int) -> Tensor:
    return (length - 1) - ((length - 1) - places.abs()).abs()
