"""`CifarResNet`: the residual networks for images of 32 x 32 that robustness and RobustBench share.

Source: He et al., "Deep residual learning for image recognition", 2016, with the stem of a single 3 x 3 convolution;
parameters are named as in github.com/kuangliu/pytorch-cifar, from which both took them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_counts

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """Two 3 x 3 convolutions, or with a bottleneck 1 x 1, 3 x 3 and 1 x 1, and a shortcut around them."""

    def __init__(self, num_in: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        num_out = 4 * width if bottleneck else width
        shapes = [(num_in, width, 1, 1), (width, width, 3, stride), (width, num_out, 1, 1)]
        shapes = shapes if bottleneck else [(num_in, width, 3, stride), (width, width, 3, 1)]
        self.num_convolutions, self.relu = len(shapes), nn.ReLU()
        for number, (channels, filters, size, step) in enumerate(shapes, start=1):
            convolution = nn.Conv2d(channels, filters, size, step, padding=size // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(filters))
        self.shortcut = nn.Sequential()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.num_convolutions + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            out = self.relu(out) if number < self.num_convolutions else out
        return self.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-18, -34 or -50 for small images.

    Args:
        depth: 18, 34 or 50.
        num_classes: classes, >= 2.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, 3, 32, 32)` to logits `(N, num_classes)`.
    """

    def __init__(self, depth: int = 18, *, num_classes: int = 10) -> None:
        super().__init__()
        check_counts("CifarResNet", num_classes=num_classes, least=2)
        if depth not in DEPTHS:
            raise ValueError(f"CifarResNet(depth=...) must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        bottleneck, channels = depth >= 50, WIDTHS[0]
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        for number, (width, num_blocks) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), start=1):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if number > 1 and block == 0 else 1
                blocks.append(_Block(channels, width, stride, bottleneck=bottleneck))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(F.avg_pool2d(x, 4).flatten(1))
