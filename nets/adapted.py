"""`AdaptedNet`: any model of torchvision for other images and classes than ImageNet's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_flags

from .imagenet import TorchvisionNet
from .parts.replace_layer import like, replace_layer

NUM_IMAGENET = 1000


class AdaptedNet(nn.Module):
    """A model of torchvision whose first and last layers are made for these images and classes.

    The last layer begins with random weights. So does the first convolution where it is changed.

    Args:
        name: as in `torchvision.models.list_models()`, as `resnet18`.
        num_classes: classes, >= 2.
        in_channels: channels of the image.
        small: whether images are small, as CIFAR's: the first convolution becomes one of 3 x 3 with a stride of 1,
            and a pooling by maxima that the model has before its second convolution is left out. A convolution that
            cuts the image into patches stays as it is.
        weights: as in `TorchvisionNet`; None for the random initialisation.

    Raises:
        ValueError: a number is below its least; there is no such model or weights, or it has not the layers to adapt.

    Shape:
        float `(N, in_channels, H, W)` in [0, 1] to logits `(N, num_classes)`; H and W as the model allows. With other
        than three channels, pixels are not normalized.
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        small: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_counts("AdaptedNet", num_classes=num_classes, least=2)
        check_counts("AdaptedNet", in_channels=in_channels)
        check_flags("AdaptedNet", small=small)
        whole = TorchvisionNet(name, weights=weights)
        self.net, self.normalize = whole.net, whole.normalize if in_channels == 3 else nn.Identity()
        layers = [(path, part) for path, part in self.net.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
        first = next(((path, part) for path, part in layers if isinstance(part, nn.Conv2d)), None)
        last = next(((path, part) for path, part in reversed(layers) if _num_out(part) == NUM_IMAGENET), None)
        if first is None or last is None:
            raise ValueError(f"AdaptedNet(name={name!r}) has no first convolution or no last layer to adapt")
        changed: dict[str, Any] = {} if in_channels == first[1].in_channels else {"in_channels": in_channels}
        cuts_patches = first[1].kernel_size == first[1].stride
        if small and not cuts_patches and (first[1].stride, first[1].kernel_size) != ((1, 1), (3, 3)):
            changed |= {"kernel_size": 3, "stride": 1, "padding": 1}
        if changed:
            replace_layer(self.net, first[0], like(first[1], changed))
        if small and (pooling := _pooling_behind(self.net, first[0])) is not None:
            replace_layer(self.net, pooling, nn.Identity())
        of_linear = isinstance(last[1], nn.Linear)
        replace_layer(self.net, last[0], like(last[1], {"out_features" if of_linear else "out_channels": num_classes}))
        self.net.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x).contiguous(memory_format=torch.channels_last))


def _num_out(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _pooling_behind(net: nn.Module, convolution: str) -> str | None:
    """The name of the first `nn.MaxPool2d` registered after a convolution and before the next, None where none is."""
    parts = [(path, part) for path, part in net.named_modules() if isinstance(part, (nn.Conv2d, nn.MaxPool2d))]
    behind = [path for path, _ in parts].index(convolution) + 1
    path, part = parts[behind] if behind < len(parts) else ("", None)
    return path if isinstance(part, nn.MaxPool2d) else None
