"""`AllConvNet`: convolutions alone, strides in place of pooling.

Source: Springenberg et al., "Striving for simplicity: the all convolutional net", 2015, All-CNN-C of table 2, with
BatchNorm after each convolution.
"""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.options import check_counts


class AllConvNet(nn.Sequential):
    """Nine convolutions, each with BatchNorm and ReLU but the last, and the mean over the image.

    Args:
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        width: channels of the first three convolutions; the next five have twice as many.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, H, W)`, H and W >= 1, to logits `(N, num_classes)`. In training an image alone in its
        batch must be larger than 4 x 4, since BatchNorm needs two values.
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 3, width: int = 96) -> None:
        check_counts("AllConvNet", num_classes=num_classes, least=2)
        check_counts("AllConvNet", in_channels=in_channels, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for filters, size, stride in (
            (width, 3, 1), (width, 3, 1), (width, 3, 2),
            (2 * width, 3, 1), (2 * width, 3, 1), (2 * width, 3, 2),
            (2 * width, 3, 1), (2 * width, 1, 1),
        ):  # fmt: skip
            convolution = nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        super().__init__(*layers, nn.Conv2d(channels, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))
