"""`Preset`: how pictures are cut for the weights of a net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class Preset:
    """The short side is resized, and the centre is cut out.

    Attributes:
        image_size: side of the square that is cut out.
        resize: the short side before that.
        interpolation: how it is resized.
    """

    image_size: int = 224
    resize: int = 256
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


def preset_of(net: nn.Module) -> Preset | None:
    """The attribute `preset` of a net, or of a module in it; None where no module has one."""
    presets = (getattr(module, "preset", None) for module in net.modules())
    return next((preset for preset in presets if isinstance(preset, Preset)), None)
