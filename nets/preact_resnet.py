"""`PreActResNet`: residual networks whose blocks normalize before they convolve.

Source: He et al., "Identity mappings in deep residual networks", 2016; parameters are named as in
github.com/kuangliu/pytorch-cifar, and the last normalization as in RobustBench.
"""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.options import check_counts

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
WIDTHS = (64, 128, 256, 512)


class PreActBlock(nn.Module):
    """BatchNorm, ReLU and a convolution, twice, or with a bottleneck three times; the sum stays as it is.

    Where dimensions differ, the shortcut is a 1 x 1 convolution of what is normalized already.

    Args:
        num_in: channels that come in.
        width: channels of the 3 x 3 convolutions.
        stride: of the first of these.
        bottleneck: whether 1 x 1 convolutions stand around one of 3 x 3, the last with 4 times the channels.

    Shape:
        float `(N, num_in, H, W)` to `(N, width or 4 width, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, num_in: int, width: int, stride: int = 1, *, bottleneck: bool = False) -> None:
        super().__init__()
        num_out = 4 * width if bottleneck else width
        shapes = [(num_in, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            shapes = [(num_in, width, 1, 1), (width, width, 3, stride), (width, num_out, 1, 1)]
        self.num_convolutions, self.relu = len(shapes), nn.ReLU()
        for number, (channels, filters, size, step) in enumerate(shapes, start=1):
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
            self.add_module(f"conv{number}", nn.Conv2d(channels, filters, size, step, padding=size // 2, bias=False))
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.get_submodule("bn1")(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.get_submodule("conv1")(out)
        for number in range(2, self.num_convolutions + 1):
            out = self.get_submodule(f"conv{number}")(self.relu(self.get_submodule(f"bn{number}")(out)))
        return out + shortcut


class PreActResNet(nn.Module):
    """A pre-activation ResNet for small images.

    Args:
        depth: 18 or 34 with two convolutions in a block, 50 or 101 with bottlenecks.
        num_classes: classes, >= 2.
        in_channels: channels of the image.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 1, to logits `(N, num_classes)`. In training an image alone in its
        batch must be larger than 8 x 8, since BatchNorm needs two values.
    """

    def __init__(self, depth: int = 18, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        check_counts("PreActResNet", num_classes=num_classes, least=2)
        check_counts("PreActResNet", in_channels=in_channels)
        if depth not in DEPTHS:
            raise ValueError(f"PreActResNet(depth=...) must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        bottleneck, channels = depth >= 50, WIDTHS[0]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for stage, (width, num_blocks) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), start=1):
            blocks = []
            for block in range(num_blocks):
                blocks.append(PreActBlock(channels, width, 1 + (stage > 1 and block == 0), bottleneck=bottleneck))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.bn, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(self.relu(self.bn(x)).mean((2, 3)))
