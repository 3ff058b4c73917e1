"""`SmallCNN`: two convolutions and two linear layers, for small images."""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.options import check_counts


class SmallCNN(nn.Module):
    """Two 3 x 3 convolutions, the second with a stride of 2, and a hidden linear layer.

    Args:
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        image_size: height and width of the image, an even number.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the hidden linear layer.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, in_channels, image_size, image_size)` to logits `(N, num_classes)`.
    """

    def __init__(
        self, num_classes: int = 10, *, in_channels: int = 1, image_size: int = 8, width: int = 32, hidden: int = 256
    ) -> None:
        super().__init__()
        check_counts("SmallCNN", num_classes=num_classes, image_size=image_size, least=2)
        check_counts("SmallCNN", in_channels=in_channels, width=width, hidden=hidden)
        if image_size % 2:
            raise ValueError(f"SmallCNN(image_size=...) must be even and >= 2, got {image_size}")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * (image_size // 2) ** 2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
