"""`NewHead`: a net that was trained for other classes, with a last layer of its own for these."""

from __future__ import annotations

import difflib

from torch import Tensor, nn

from touchstone.options import check_counts, check_kind

from .parts.replace_layer import like, replace_layer


class NewHead(nn.Module):
    """A net whose last layer is made anew for these classes, with random weights; all others stay as they are.

    Args:
        net: changed in place; with the weights of another task, as `Trained` or `EfficientNetLite0` has them.
        num_classes: classes, >= 2.
        layer: name of the layer to replace, a linear one or a convolution, as `net.fc`; None for the last one that the
            net registers.

    Raises:
        ValueError: `num_classes` is below 2, or there is no such layer.

    Attributes:
        head: name of the layer that was replaced, inside `net`.

    Shape:
        as that of `net`, to logits `(N, num_classes)`.

    Example:
        >>> NewHead(Trained(SmallCNN(), "logs/digits/version_0/checkpoints/best.ckpt"), num_classes=2)
    """

    def __init__(self, net: nn.Module, num_classes: int, *, layer: str | None = None) -> None:
        super().__init__()
        check_counts("NewHead", num_classes=num_classes, least=2)
        check_kind("NewHead(net=...)", net, nn.Module)
        known = _layers(net)
        if not known:
            raise ValueError(
                f"NewHead(net=...) must have a linear layer or a convolution, {type(net).__name__} has none"
            )
        if layer is not None and layer not in known:
            near = ", ".join(difflib.get_close_matches(layer, known, 3, 0))
            raise ValueError(
                f"NewHead(layer={layer!r}) must be a linear layer or a convolution; the nearest are {near}"
            )
        self.head = list(known)[-1] if layer is None else layer
        old = known[self.head]
        size = {"out_features" if isinstance(old, nn.Linear) else "out_channels": num_classes}
        replace_layer(net, self.head, like(old, size))
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def head_of(net: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """The layer that gives the logits, with its name: that of a `NewHead`, else the last one that is registered.

    None where there is no linear layer and no convolution.
    """
    for name, part in net.named_modules():
        if isinstance(part, NewHead):
            return f"{name}.net.{part.head}".lstrip("."), _layers(part.net)[part.head]
    return next(reversed(_layers(net).items()), None)


def _layers(net: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {name: part for name, part in net.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))}
