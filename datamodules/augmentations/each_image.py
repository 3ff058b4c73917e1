"""`EachImage`: transforms that treat a batch as one image, applied to every image by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2


class EachImage(nn.Module):
    """Applies a transform of `torchvision.transforms.v2`, as `RandAugment` or `TrivialAugmentWide`, image by image.

    On a batch they would draw once, and change all of its images in the same way.

    Args:
        transform: takes an image `(C, H, W)` to one of the same shape.

    Raises:
        ValueError: its magnitude is outside its range, which torchvision does not check.

    Shape:
        `(N, C, H, W)` to the same, of the dtypes that the transform takes.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        magnitude, num_bins = getattr(transform, "magnitude", None), getattr(transform, "num_magnitude_bins", None)
        if magnitude is not None and num_bins is not None and not 0 <= magnitude < num_bins:
            raise ValueError(
                f"EachImage(transform=...): {type(transform).__name__}(magnitude=...) must be in [0, {num_bins}), "
                f"got {magnitude}"
            )
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.transform(image) for image in x])


def draws_once(part: nn.Module) -> bool:
    """Whether a module draws one change for all images of a batch: torchvision's do, where they draw at all."""
    if not isinstance(part, v2.Transform):
        return False
    return any(getattr(type(part), name) is not getattr(v2.Transform, name) for name in ("make_params", "forward"))
