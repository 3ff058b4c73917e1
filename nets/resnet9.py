"""`ResNet9`: eight convolutions and a linear layer, made to learn CIFAR-10 in minutes.

Source: Page, "How to train your ResNet", myrtle.ai, 2018.
"""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.options import check_counts, check_positive


def _convolution(num_in: int, num_out: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(num_in, num_out, 3, padding=1, bias=False)]
    layers += [nn.MaxPool2d(2)] if pool else []  # before BatchNorm and ReLU, which then cost a quarter
    return nn.Sequential(*layers, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResNet9(nn.Module):
    """Three stages that halve the image, residual blocks in the first and the last, and the maximum over the rest.

    Args:
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        widths: channels before the first stage, and of each of the three.
        scale: what the logits are multiplied by, > 0.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 8, to logits `(N, num_classes)`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        scale: float = 0.125,
    ) -> None:
        super().__init__()
        check_counts("ResNet9", num_classes=num_classes, least=2)
        check_counts("ResNet9", in_channels=in_channels)
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"ResNet9(widths=...) must be four numbers >= 1, got {widths}")
        check_positive("ResNet9", scale=scale)
        start, first, second, third = widths
        self.features = nn.Sequential(
            _convolution(in_channels, start),
            nn.Sequential(_convolution(start, first, pool=True), _Residual(first)),
            _convolution(first, second, pool=True),
            nn.Sequential(_convolution(second, third, pool=True), _Residual(third)),
        )
        self.linear = nn.Linear(third, num_classes, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).amax((2, 3))) * self.scale
