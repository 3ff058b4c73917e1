"""`EachImage`: transforms that treat a batch as one image, applied to every image by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EachImage(nn.Module):
    """Applies a transform of `torchvision.transforms.v2`, as `RandAugment` or `TrivialAugmentWide`, image by image.

    On a batch they would draw once, and change all of its images in the same way.

    Args:
        transform: takes an image `(C, H, W)` to one of the same shape.

    Shape:
        `(N, C, H, W)` to the same, of the dtypes that the transform takes.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.transform(image) for image in x])
