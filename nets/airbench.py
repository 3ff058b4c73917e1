"""`AirbenchNet`: six convolutions behind a whitening, made to learn CIFAR-10 in the fewest operations.

Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024: the architecture and initialisation of its
sections 2 and 3, by its code, `airbench94.py`.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_counts, check_flags, check_positive

PATCH = 2  # pixels, the side of what is whitened
NOISE = 5e-4  # added to the variances, so that what hardly varies is not blown up
BIAS_SCALE = 8.0  # its square is how much faster than weights the paper lets biases learn


class AirbenchNet(nn.Module):
    """Whitened patches, and three groups of two convolutions that each halve the image.

    The first layer turns patches of 2 x 2 pixels into uncorrelated numbers, both signs of each. It is not learnt but
    computed of the first batch of the training, and is then a part of the state dict. Convolutions begin as the
    identity where they can; normalizations have a bias and no scale.

    Args:
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        widths: channels of the three groups.
        scale: what the logits are multiplied by, > 0.
        mirror: whether, in evaluation mode, logits are the mean of those of the image and of its mirror image, as in
            the paper; they then cost two passes.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 9, to logits `(N, num_classes)`.
    """

    is_whitened: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (64, 256, 256),
        scale: float = 1 / 9,
        mirror: bool = True,
    ) -> None:
        super().__init__()
        check_counts("AirbenchNet", num_classes=num_classes, least=2)
        check_counts("AirbenchNet", in_channels=in_channels)
        if len(widths) != 3 or min(widths) < 1:
            raise ValueError(f"AirbenchNet(widths=...) must be three numbers >= 1, got {widths}")
        check_positive("AirbenchNet", scale=scale)
        check_flags("AirbenchNet", mirror=mirror)
        num_patch = in_channels * PATCH**2
        self.whiten = nn.Conv2d(in_channels, 2 * num_patch, PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.register_buffer("is_whitened", torch.tensor(False))
        self._is_known_to_be = False  # asking the buffer at every step would wait for an accelerator
        channels = (2 * num_patch, *widths)
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in zip(channels, channels[1:], strict=False)))
        self.linear = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale, self.mirror = scale, mirror

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self._is_known_to_be:
            if not self.is_whitened:
                self._whiten(x)
            self._is_known_to_be = True
        if self.training or not self.mirror:
            return self._logits(x)
        return (self._logits(x) + self._logits(x.flip(3))) / 2

    def _logits(self, x: Tensor) -> Tensor:
        features = self.groups(F.gelu(self.whiten(x)))
        return self.linear(features.amax((2, 3))) * self.scale

    @torch.no_grad()
    def _whiten(self, x: Tensor) -> None:
        """Sets the first layer to the eigenvectors of the covariance of the patches, over the root of their values.

        Of the patches of all processes, each of which has another batch.
        """
        with torch.autocast(x.device.type, enabled=False):
            patches = F.unfold(x.float(), PATCH).transpose(1, 2).flatten(0, 1)
            sums = torch.cat([patches.T @ patches, patches.new_full((1, patches.shape[1]), len(patches))])
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
            values, vectors = torch.linalg.eigh(sums[:-1] / sums[-1, 0])
        rows = (vectors / (values + NOISE).sqrt()).T.flip(0).reshape(-1, x.shape[1], PATCH, PATCH)
        self.whiten.weight.copy_(torch.cat([rows, -rows]))
        self.is_whitened.fill_(True)


class _Group(nn.Sequential):
    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(
            _convolution(num_in, num_out),
            nn.MaxPool2d(2),
            _Norm(num_out),
            nn.GELU(),
            _convolution(num_out, num_out),
            _Norm(num_out),
            nn.GELU(),
        )


class _Norm(nn.Module):
    """BatchNorm that forgets quickly, without a scale, and with a bias that learns faster than the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=0.4, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + (BIAS_SCALE * self.bias).to(x.dtype)[:, None, None]


def _convolution(num_in: int, num_out: int) -> nn.Conv2d:
    layer = nn.Conv2d(num_in, num_out, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:num_in])
    return layer
