"""`Distort`: twelve of the sixteen distortions of AutoAugment, each with a strength, on batches.

Source: Cubuk et al., "AutoAugment: learning augmentation policies from data", 2019, table 6, built on torchvision's
transforms v2.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from touchstone.options import check_between, check_numbers


@dataclass(frozen=True)
class Distortion:
    """One of the twelve.

    Attributes:
        apply: images and a strength > 0 to images. `Distort` leaves them as they are at 0, where Solarize would still
            invert what is as bright as can be.
        default: a strength that is easily seen.
        highest: the largest strength.
        unit: what the strength counts.
        has_sign: whether it goes both ways.
    """

    apply: Callable[[Tensor, float], Tensor]
    default: float
    highest: float
    unit: str
    has_sign: bool = True


def _affine(x: Tensor, **changed: Any) -> Tensor:
    still: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return F.affine(x, **{**still, **changed}, interpolation=InterpolationMode.BILINEAR)


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _equalize(x: Tensor, strength: float) -> Tensor:
    mixed = torch.lerp(x.float(), F.equalize(x).float(), strength)
    return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


DISTORTIONS = {
    "ShearX": Distortion(lambda x, s: _affine(x, shear=[_degrees(s), 0.0]), 0.3, 1.0, "columns per row"),
    "ShearY": Distortion(lambda x, s: _affine(x, shear=[0.0, _degrees(s)]), 0.3, 1.0, "rows per column"),
    "TranslateX": Distortion(
        lambda x, s: _affine(x, translate=[round(s * x.shape[-1]), 0]), 0.3, 1.0, "share of the width"
    ),
    "TranslateY": Distortion(
        lambda x, s: _affine(x, translate=[0, round(s * x.shape[-2])]), 0.3, 1.0, "share of the height"
    ),
    "Rotate": Distortion(lambda x, s: F.rotate(x, s, interpolation=InterpolationMode.BILINEAR), 30.0, 180.0, "degrees"),
    "Brightness": Distortion(lambda x, s: F.adjust_brightness(x, 1 + s), 0.5, 1.0, "factor less 1"),
    "Color": Distortion(lambda x, s: F.adjust_saturation(x, 1 + s), 0.9, 1.0, "factor less 1"),
    "Contrast": Distortion(lambda x, s: F.adjust_contrast(x, 1 + s), 0.5, 1.0, "factor less 1"),
    "Sharpness": Distortion(lambda x, s: F.adjust_sharpness(x, 1 + s), 0.9, 1.0, "factor less 1"),
    "Posterize": Distortion(lambda x, s: F.posterize(x, 8 - round(s)), 5.0, 8.0, "bits taken away", False),
    "Solarize": Distortion(
        lambda x, s: F.solarize(x, (1 - s) * (1.0 if x.is_floating_point() else 255)),
        0.5,
        1.0,
        "share of the range inverted",
        False,
    ),
    "Equalize": Distortion(_equalize, 1.0, 1.0, "share of the equalized image", False),
}


class Distort(nn.Module):
    """Distorts each image of a batch with a probability; where there are two directions, to either.

    Args:
        name: which of the twelve: ShearX, ShearY, TranslateX, TranslateY, Rotate, Brightness, Color, Contrast,
            Sharpness, Posterize, Solarize, Equalize.
        strength: in [0, the highest of `DISTORTIONS`], in the unit given there; at 0 images stay as they are. None
            for one that is easily seen.
        probability: that an image is distorted, in [0, 1].

    Raises:
        ValueError: there is no such name, or a value is outside its range.

    Shape:
        uint8, or float in [0, 1], `(N, C, H, W)` to the same.
    """

    def __init__(self, name: str, strength: float | None = None, *, probability: float = 0.5) -> None:
        super().__init__()
        if name not in DISTORTIONS:
            near = difflib.get_close_matches(name, DISTORTIONS, 1, 0)
            raise ValueError(
                f"Distort(name={name!r}) must be one of {', '.join(map(repr, DISTORTIONS))}; the nearest is {near[0]!r}"
            )
        known = DISTORTIONS[name]
        strength = known.default if strength is None else strength
        check_numbers(self, strength=strength)
        if not 0 <= strength <= known.highest:
            raise ValueError(
                f"Distort({name!r}, strength=...) must be in [0, {known.highest:g}], {known.unit}, got {strength}"
            )
        check_between("Distort(probability=...)", probability, 0, 1)
        self.name, self.strength, self.probability = name, strength, probability

    def forward(self, x: Tensor) -> Tensor:
        known, drawn = DISTORTIONS[self.name], torch.rand(len(x), device=x.device)
        if not self.strength or not self.probability:
            return x
        directions = (1, -1) if known.has_sign else (1,)
        each, out = self.probability / len(directions), x.clone()
        for number, direction in enumerate(directions):
            rows = ((drawn >= number * each) & (drawn < (number + 1) * each)).nonzero().squeeze(1)
            if len(rows):
                out[rows] = known.apply(x[rows], direction * self.strength)
        return out
