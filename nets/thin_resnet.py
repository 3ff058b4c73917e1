"""`ThinResNet`: the ResNet-20, -32, -44, -56 and -110 of the CIFAR-10 experiments.

Source: He et al., "Deep residual learning for image recognition", 2016, section 4.2; parameters are named as in
github.com/akamaster/pytorch_resnet_cifar10, whose weights load.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_choice, check_counts

WIDTHS = (16, 32, 64)
Shortcut = Literal["pad", "projection"]


class PaddedShortcut(nn.Module):
    """Every second pixel, and as many channels of zeros before and after as are missing (option A of the paper)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = num_out - num_in, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, each with BatchNorm, ReLU between them and after the sum with the shortcut.

    Args:
        num_in: channels that come in.
        num_out: channels that go out, >= `num_in`.
        stride: of the first convolution.
        shortcut: where dimensions differ: `"pad"` (option A), or `"projection"` by a 1 x 1 convolution (option B).

    Shape:
        float `(N, num_in, H, W)` to `(N, num_out, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, num_in: int, num_out: int, stride: int = 1, *, shortcut: Shortcut = "pad") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Sequential()
        if (stride != 1 or num_in != num_out) and shortcut == "pad":
            self.shortcut = PaddedShortcut(num_in, num_out, stride)
        elif stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.shortcut(x))


class ThinResNet(nn.Module):
    """Three stages of basic blocks with 16, 32 and 64 channels.

    Args:
        depth: 6 n + 2 for n >= 1 blocks in a stage: 20, 32, 44, 56, 110.
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        shortcut: where dimensions differ: `"pad"` has no parameters, `"projection"` a 1 x 1 convolution.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 1, to logits `(N, num_classes)`. In training an image alone in its
        batch must be larger than 4 x 4, since BatchNorm needs two values.
    """

    def __init__(
        self, depth: int = 20, *, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "pad"
    ) -> None:
        super().__init__()
        check_counts("ThinResNet", num_classes=num_classes, least=2)
        check_counts("ThinResNet", in_channels=in_channels, depth=depth)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"ThinResNet(depth=...) must be 6 n + 2, as 20, 32, 44, 56 and 110, got {depth}")
        check_choice("ThinResNet(shortcut=...)", shortcut, get_args(Shortcut))
        channels = WIDTHS[0]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        for stage, width in enumerate(WIDTHS, start=1):
            blocks = []
            for block in range(depth // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, shortcut=shortcut))
                channels = width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))
