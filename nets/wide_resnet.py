"""`WideResNet`: pre-activated residual networks with few layers and many channels.

Source: Zagoruyko and Komodakis, "Wide residual networks", 2016; parameters are named as in RobustBench and the code of
TRADES, whose weights of WideResNet-28-10 and -34-10 load.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_between, check_counts


class WideBlock(nn.Module):
    """BatchNorm, ReLU and a 3 x 3 convolution, twice; the sum stays as it is.

    Where channels differ, the shortcut is a 1 x 1 convolution of what is normalized already.

    Args:
        num_in: channels that come in.
        num_out: channels that go out.
        stride: of the first convolution; with another than 1, channels must differ.
        dropout: probability between the convolutions, in [0, 1).

    Shape:
        float `(N, num_in, H, W)` to `(N, num_out, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, num_in: int, num_out: int, stride: int = 1, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(num_in)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.dropout, self.relu = dropout, nn.ReLU()
        self.convShortcut = None if num_in == num_out else nn.Conv2d(num_in, num_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normalized = self.relu(self.bn1(x))
        out = self.relu(self.bn2(self.conv1(normalized)))
        out = self.conv2(F.dropout(out, self.dropout, self.training))
        return out + (x if self.convShortcut is None else self.convShortcut(normalized))


class _Stage(nn.Module):
    """Blocks one after another, as `layer`, which is how published weights call them."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """WideResNet-`depth`-`width`.

    Args:
        depth: 6 n + 4 for n >= 1 blocks in a stage: 28, 34, 70.
        width: how many times 16, 32 and 64 channels, >= 2.
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        dropout: probability inside the blocks, in [0, 1).

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 1, to logits `(N, num_classes)`. In training an image alone in its
        batch must be larger than 4 x 4, since BatchNorm needs two values.
    """

    def __init__(
        self, depth: int = 28, width: int = 10, *, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_counts("WideResNet", num_classes=num_classes, width=width, least=2)
        check_counts("WideResNet", in_channels=in_channels, depth=depth)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"WideResNet(depth=...) must be 6 n + 4, as 16, 28, 34 and 70, got {depth}")
        check_between("WideResNet(dropout=...)", dropout, 0, 1, "[)")
        channels = 16
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for stage in range(1, 4):
            blocks = []
            for block in range(depth // 6):
                num_out = 16 * width * 2 ** (stage - 1)
                blocks.append(WideBlock(channels, num_out, 1 + (stage > 1 and block == 0), dropout=dropout))
                channels = num_out
            self.add_module(f"block{stage}", _Stage(*blocks))
        self.bn1, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in range(1, 4):
            x = self.get_submodule(f"block{stage}")(x)
        return self.fc(self.relu(self.bn1(x)).mean((2, 3)))
