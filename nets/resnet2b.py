"""`ResNet2b`: a small residual network without normalization layers, made to be verified.

Source: the model `resnet2b` of alpha-beta-CROWN, Wang et al., "Beta-CROWN: efficient bound propagation with per-neuron
split constraints for neural network robustness verification", 2021; parameters are named as in their files.
"""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.options import check_counts


class _Block(nn.Module):
    """Two 3 x 3 convolutions, and a shortcut around them."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.relu, self.shortcut = nn.ReLU(), nn.Sequential()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2b(nn.Module):
    """A strided convolution, two blocks and two linear layers, for images of 32 x 32 pixels.

    Args:
        num_classes: classes, >= 2.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, 3, 32, 32)` to logits `(N, num_classes)`.
    """

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        check_counts("ResNet2b", num_classes=num_classes, least=2)
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(8, 16, 2), _Block(16, 16, 1))
        self.relu = nn.ReLU()
        self.linear1, self.linear2 = nn.Linear(16 * 8 * 8, 100), nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.relu(self.conv1(x)))
        return self.linear2(self.relu(self.linear1(x.flatten(1))))
