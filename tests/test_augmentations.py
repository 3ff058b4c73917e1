"""Augmentations change each image of a batch by itself, by the strength asked for, as Pillow and NumPy would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from torchvision.transforms import v2

from touchstone.datamodules.augmentations import DISTORTIONS, Distort, EachImage, RandomCrop, RandomFlip

from .image_files import random_pixels

BILINEAR = Image.Resampling.BILINEAR


def smooth(side: int = 32) -> np.ndarray:
    """Bytes, `(side, side, 3)`, without sharp edges, so that interpolation hardly matters."""
    small = Image.fromarray(random_pixels(3, 4))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def batch(pixels: np.ndarray, num: int = 1) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].repeat(num, 1, 1, 1)


def enhanced(kind: Any, factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: kind(picture).enhance(factor)


def sheared(picture: Image.Image, *, x: float = 0.0, y: float = 0.0, dx: int = 0, dy: int = 0) -> Image.Image:
    """Around the middle, which is between the pixels."""
    middle = picture.width / 2
    data = (1, -x, x * middle - dx, -y, 1, y * middle - dy)
    return picture.transform(picture.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


ORACLES: dict[str, tuple[float, Callable[[Image.Image], Image.Image], Callable[[Image.Image], Image.Image]]] = {
    "ShearX": (0.25, lambda p: sheared(p, x=0.25), lambda p: sheared(p, x=-0.25)),
    "ShearY": (0.25, lambda p: sheared(p, y=0.25), lambda p: sheared(p, y=-0.25)),
    "TranslateX": (0.25, lambda p: sheared(p, dx=8), lambda p: sheared(p, dx=-8)),
    "TranslateY": (0.25, lambda p: sheared(p, dy=8), lambda p: sheared(p, dy=-8)),
    "Rotate": (20.0, lambda p: p.rotate(20, BILINEAR), lambda p: p.rotate(-20, BILINEAR)),
    "Brightness": (0.5, enhanced(ImageEnhance.Brightness, 1.5), enhanced(ImageEnhance.Brightness, 0.5)),
    "Color": (0.75, enhanced(ImageEnhance.Color, 1.75), enhanced(ImageEnhance.Color, 0.25)),
    "Contrast": (0.5, enhanced(ImageEnhance.Contrast, 1.5), enhanced(ImageEnhance.Contrast, 0.5)),
    "Sharpness": (0.75, enhanced(ImageEnhance.Sharpness, 1.75), enhanced(ImageEnhance.Sharpness, 0.25)),
    "Posterize": (5.0, lambda p: ImageOps.posterize(p, 3), lambda p: ImageOps.posterize(p, 3)),
    "Solarize": (0.5, lambda p: ImageOps.solarize(p, 128), lambda p: ImageOps.solarize(p, 128)),
    "Equalize": (1.0, ImageOps.equalize, ImageOps.equalize),
}  # fmt: skip


def test_there_are_the_twelve() -> None:
    assert set(DISTORTIONS) == set(ORACLES)
    assert len(DISTORTIONS) == 12


@pytest.mark.parametrize("name", ORACLES)
def test_a_distortion_does_what_pillow_does_in_either_direction(name: str) -> None:
    torch.manual_seed(0)
    pixels = smooth()
    strength, up, down = ORACLES[name]
    out = Distort(name, strength, probability=1.0)(batch(pixels, 32))
    expected = [torch.from_numpy(np.array(oracle(Image.fromarray(pixels)))).permute(2, 0, 1) for oracle in (up, down)]
    # The border of what is moved is mixed with black in one library and not in the other.
    differences = [(out.int() - oracle.int()).abs().flatten(1) for oracle in expected]
    nearest = torch.stack([difference.float().quantile(0.93, 1) for difference in differences])
    assert nearest.amin(0).max() <= 4, f"{nearest}"
    if DISTORTIONS[name].has_sign:
        ups = int((nearest[0] < nearest[1]).sum())
        assert 4 < ups < 28


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_leaves_images_as_they_are_and_more_of_it_changes_more(name: str, channels: int) -> None:
    x = batch(smooth())[:, :channels]
    assert torch.equal(Distort(name, 0.0, probability=1.0)(x), x)
    highest = DISTORTIONS[name].highest
    strengths = [highest * share for share in ((0.02, 0.1, 0.2) if name == "Rotate" else (0.25, 0.5, 0.9))]
    changes = []
    for strength in strengths:
        torch.manual_seed(1)
        changes.append(float((Distort(name, strength, probability=1.0)(x).float() - x.float()).abs().mean()))
    if (name, channels) != ("Color", 1):  # grey has no colour
        assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", DISTORTIONS)
def test_images_of_a_batch_are_distorted_independently_with_the_probability(name: str) -> None:
    torch.manual_seed(0)
    x = batch(smooth(), 400)
    out = Distort(name, probability=0.25)(x)
    num_changed = int((out != x).flatten(1).any(1).sum())
    assert 65 < num_changed < 140
    assert torch.equal(Distort(name, probability=0.0)(x), x)
    assert torch.equal(x, batch(smooth(), 400))  # its input is left alone


@pytest.mark.parametrize("name", DISTORTIONS)
def test_floats_are_distorted_as_bytes_are(name: str) -> None:
    x = batch(smooth(), 4)
    torch.manual_seed(2)
    of_bytes = Distort(name, probability=1.0)(x).float() / 255
    torch.manual_seed(2)
    of_floats = Distort(name, probability=1.0)(x.float() / 255)
    assert (of_bytes - of_floats).abs().flatten().quantile(0.99) < 0.02
    assert of_floats.min() >= 0
    assert of_floats.max() <= 1


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_strength_outside_its_range_is_an_error(name: str) -> None:
    highest = DISTORTIONS[name].highest
    for strength in (-0.1, highest + 0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"Distort\('{name}', strength=...\) must be in \[0, {highest:g}\]"):
            Distort(name, strength)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distort("Sheer"), "the nearest is 'Shear"),
        (lambda: Distort("Rotate", probability=1.5), r"probability=.* in \[0, 1\], got 1.5"),
        (lambda: RandomFlip(-0.1), r"probability=.* in \[0, 1\], got -0.1"),
        (lambda: EachImage(v2.RandAugment(magnitude=31)), r"RandAugment\(magnitude=...\) must be in \[0, 31\), got 31"),
        (lambda: EachImage(v2.RandAugment(magnitude=-1)), r"magnitude=.* in \[0, 31\), got -1"),
        (lambda: RandomCrop(0), "padding=.* >= 1, got 0"),
        (lambda: RandomCrop(mode="mirror"), "'zeros', 'reflect', got 'mirror'"),
        (lambda: RandomCrop(8, mode="reflect")(batch(smooth(8))), "padding=.* < 8, got 8"),
        (lambda: RandomCrop(8)(batch(smooth(8))), "padding=.* < 8, got 8"),
        (lambda: RandomCrop(8)(batch(smooth(32))[:, :, :, :8]), "padding=.* < 8, got 8"),
    ],
)
def test_a_value_outside_its_range_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_crop_is_one_of_all_shifts_of_the_padded_image(mode: Any) -> None:
    torch.manual_seed(0)
    pixels = random_pixels(0, 6)
    how: dict[str, Any] = {"mode": "constant"} if mode == "zeros" else {"mode": "reflect"}
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), **how)
    shifts = {
        padded[dy : dy + 6, dx : dx + 6].transpose(2, 0, 1).tobytes(): (dy, dx) for dy in range(5) for dx in range(5)
    }
    out = RandomCrop(2, mode=mode)(batch(pixels, 300))
    found = [shifts[image.numpy().tobytes()] for image in out.contiguous()]
    assert set(found) == set(shifts.values())


def test_the_widest_crop_leaves_a_part_of_every_image() -> None:
    torch.manual_seed(0)
    white = torch.full((1000, 1, 6, 6), 255, dtype=torch.uint8)
    num_left = (RandomCrop(5)(white) == 255).flatten(1).sum(1)
    assert num_left.min() == 1
    assert num_left.max() == 36


def test_a_flip_mirrors_about_half_of_a_batch() -> None:
    torch.manual_seed(0)
    x = batch(random_pixels(0, 6), 200)
    out = RandomFlip()(x)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert torch.equal(out[~mirrored], x[~mirrored])
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize("transform", [v2.RandAugment(), v2.TrivialAugmentWide()])
def test_transforms_of_torchvision_draw_for_each_image(transform: nn.Module) -> None:
    torch.manual_seed(0)
    x = batch(smooth(), 24)
    out = EachImage(transform)(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert len({image.numpy().tobytes() for image in out}) > 12
