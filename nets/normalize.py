"""`Normalize`: the normalization as a layer; `Normalized`: a net behind it, which takes pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation, channel by channel.

    Args:
        mean: one number per channel, in pixels of [0, 1].
        std: one number per channel, > 0.

    Raises:
        ValueError: the two differ in length, or a standard deviation is not > 0; or, where there are several, images
            have another number of channels.

    Shape:
        float `(N, C, H, W)` to the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(mean):
            raise ValueError(f"Normalize(mean=..., std=...) must have one number per channel, got {mean} and {std}")
        if not all(value > 0 for value in std):
            raise ValueError(f"Normalize(std=...) must be > 0, got {list(std)}")
        # Not in the state dict: they are part of the architecture, and people load weights that lack them.
        dtype = torch.get_default_dtype()  # of whole numbers too
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=dtype).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        num_channels = len(self.mean)
        if num_channels > 1 and x.ndim > 2 and x.shape[-3] != num_channels:  # grey would become colours by broadcasting
            raise ValueError(f"Normalize has numbers for {num_channels} channels, and the images have {x.shape[-3]}")
        return (x - self.mean) / self.std

    def undo(self, normalized: Tensor) -> Tensor:
        """The pixels that `forward` would turn into `normalized`."""
        return normalized * self.std + self.mean


class Normalized(nn.Module):
    """A net behind its normalization.

    Args:
        net: normalized images to logits.
        mean: as in `Normalize`.
        std: as in `Normalize`.

    Shape:
        as that of `net`, from pixels in [0, 1].
    """

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize, self.net = Normalize(mean, std), net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x))
