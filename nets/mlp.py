"""`MLP`: linear layers with ReLU between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from touchstone.options import check_counts


class MLP(nn.Sequential):
    """A multilayer perceptron on the values of an image.

    Args:
        shape: of one image.
        hidden: units of each hidden layer; none for a linear classifier.
        num_classes: classes, >= 2.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, *shape)` to logits `(N, num_classes)`.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int] = (256, 256), *, num_classes: int = 10) -> None:
        check_counts("MLP", num_classes=num_classes, least=2)
        if any(units < 1 for units in (*shape, *hidden)):
            raise ValueError(f"MLP(shape=..., hidden=...) must be >= 1 each, got {[*shape]} and {[*hidden]}")
        units = [math.prod(shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for num_in, num_out in zip(units[:-1], units[1:], strict=True):
            layers += [nn.Linear(num_in, num_out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(units[-1], num_classes))
