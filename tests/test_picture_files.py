"""A picture of any kind is read as upright RGB."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from touchstone.datamodules.parts.read_picture import picture_suffixes, read_picture

from .picture_folders import RED, bomb


def two_halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Red on the left, white on the right."""
    picture = Image.new("RGB", size, "white")
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture


def rotated(folder: Path) -> Path:
    """Stored lying, with the note that it is to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves().transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg", exif=exif, quality=95)
    return folder / "a.jpg"


def with_alpha(folder: Path) -> Path:
    picture = two_halves().convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (20, 0, 40, 20))  # the right half is transparent, above black
    picture.paste((0, 0, 0, 0), (20, 0, 40, 20))
    picture.putalpha(alpha)
    picture.save(folder / "a.png")
    return folder / "a.png"


def transparent_palette(folder: Path) -> Path:
    picture = two_halves().quantize(4)
    white = min(range(2), key=lambda i: -sum(picture.getpalette()[3 * i : 3 * i + 3]))
    picture.save(folder / "a.png", transparency=white)
    return folder / "a.png"


def saved(name: str, mode: str = "RGB", **options: Any) -> Any:
    def save(folder: Path) -> Path:
        picture = two_halves().quantize(4) if mode == "P" else two_halves().convert(mode)
        picture.save(folder / name, **options)
        return folder / name

    return save


@pytest.mark.parametrize(
    "make",
    [
        saved("a.jpg", quality=95),
        saved("a.jpg", "CMYK", quality=95),
        saved("a.png", "P"),
        saved("a.gif", "P"),
        saved("a.webp", lossless=True),
        saved("a.bmp"),
        saved("a.tiff", "CMYK"),
        rotated,
        with_alpha,
        transparent_palette,
    ],
    ids=["jpeg", "cmyk jpeg", "palette", "gif", "webp", "bmp", "cmyk tiff", "exif", "alpha", "transparent palette"],
)
def test_a_picture_of_any_kind_is_read_as_upright_rgb(tmp_path: Path, make: Any) -> None:
    picture = read_picture(make(tmp_path))
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[3:17, 3:17] - RED).max() < 25
    assert pixels[3:17, 23:37].min() > 230


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_grey_of_any_depth_keeps_its_range(tmp_path: Path, dtype: Any, white: float) -> None:
    ramp = (np.linspace(0, 1, 256)[None].repeat(8, 0) * white).astype(dtype)
    path = tmp_path / ("a.tiff" if dtype is np.float32 else "a.png")
    Image.fromarray(ramp).save(path)
    read = np.asarray(read_picture(path)).astype(int)
    assert read.shape == (8, 256, 3)
    assert np.abs(read[0, :, 0] - np.arange(256)).max() <= 1


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_picture(tmp_path / "a.png")).max() == 1


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(read_picture(tmp_path / "a.gif")).astype(int) - RED).max() < 10


def test_heic_is_read_where_there_is_a_library(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(two_halves((64, 32))).save(tmp_path / "a.heic", quality=95)
    for name in ("a.heic", "a.HIF", "a.jpg"):
        (tmp_path / name).write_bytes((tmp_path / "a.heic").read_bytes())
        picture = read_picture(tmp_path / name)
        assert (picture.mode, picture.size) == ("RGB", (64, 32))
        pixels = np.asarray(picture).astype(int)
        assert np.abs(pixels[4:28, 4:26] - RED).max() < 30
        assert pixels[4:28, 38:60].min() > 225
    with pytest.raises(ValueError, match="a bomb"):
        read_picture(tmp_path / "a.heic", max_pixels=1000)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
@pytest.mark.parametrize("name", ["a.heic", "a.hif", "a.jpg"])
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_without_a_library_says_which(tmp_path: Path, name: str, brand: bytes) -> None:
    content = b"\0\0\0\x18ftyp" + brand + bytes(12)
    (tmp_path / name).write_bytes(content)
    for given in (None, content):
        with pytest.raises(ValueError, match="pip install pillow-heif"):
            read_picture(tmp_path / name, content=given)


@pytest.mark.parametrize("suffix", [".heic", ".hif"])
def test_what_is_called_heic_and_is_none_is_read_as_what_it_is(tmp_path: Path, suffix: str) -> None:
    two_halves().save(tmp_path / f"a{suffix}", "JPEG")
    assert read_picture(tmp_path / f"a{suffix}").size == (40, 20)
    assert suffix in picture_suffixes()


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    with pytest.raises(ValueError, match="a bomb"):
        read_picture(bomb(tmp_path / "a.png", side))


def test_more_pixels_than_pillow_allows_are_read_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow refuses twice its limit, which here is one pixel; and has its limit back afterwards, whatever happened."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    two_halves().save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", max_pixels=300_000_000).size == (40, 20)
    with pytest.raises(ValueError, match="has 18000 x 18000 pixels, more than 300,000,000"):
        read_picture(bomb(tmp_path / "b.png", 18_000), max_pixels=300_000_000)
    with pytest.raises(ValueError, match="far more than 300,000,000"):
        read_picture(bomb(tmp_path / "c.png", 60_000), max_pixels=300_000_000)
    with ThreadPoolExecutor(4) as threads:
        read = threads.map(lambda _: read_picture(tmp_path / "a.png", max_pixels=300_000_000).size, range(40))
        assert set(read) == {(40, 20)}
    assert Image.MAX_IMAGE_PIXELS == 1
