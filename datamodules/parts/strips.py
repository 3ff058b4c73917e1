"""Strips of a picture, and how those of each mode become RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

STRIP_PIXELS = 1_000_000
SAMPLE_FORMAT, UNSIGNED = 339, 1  # a tag of TIFF, and its value for numbers without a sign


def strips(picture: Image.Image, *, multiple_of: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The picture from top to bottom, in parts of a multiple of so many rows, each with its first row."""
    width, height = picture.size
    rows = max(1, STRIP_PIXELS // width // multiple_of) * multiple_of
    for top in range(0, height, rows):
        yield top, picture.crop((0, top, width, min(top + rows, height)))


def strip_converter(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What turns a strip of this picture into RGB, on white where it is transparent.

    Raises:
        ValueError: the picture holds values that are no numbers.
    """
    if not (picture.mode.startswith("I") or picture.mode == "F"):
        return _on_white
    black, white = _range(picture)
    transparent = picture.info.get("transparency")

    def convert(strip: Image.Image) -> Image.Image:
        values = _values(strip, picture)
        grey = ((values - black) * (255 / (white - black))).round().clip(0, 255).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")

    return convert


def _on_white(strip: Image.Image) -> Image.Image:
    if strip.mode == "P" and "transparency" not in strip.info:
        strip = strip.convert("RGB")
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return strip.convert("RGB")


def _values(strip: Image.Image, picture: Image.Image) -> np.ndarray:
    values = np.asarray(strip)
    if values.dtype == np.int32 and getattr(picture, "tag_v2", {}).get(SAMPLE_FORMAT, (0,))[0] == UNSIGNED:
        values = values.view(np.uint32)  # Pillow has no such mode
    return values.astype(np.float64)


def _range(picture: Image.Image) -> tuple[float, float]:
    """The grey values that are black and white: what the kind of file declares, else what is found.

    Those of 8 or 16 bits may be kept in a wider type, and floats are mostly shares of 1.
    """
    if picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM") and picture.mode == "I":
        return 0, 65535
    low, high = 0.0, 0.0
    for _, strip in strips(picture):
        values = _values(strip, picture)
        if not np.isfinite(values).all():
            raise ValueError("it holds grey values that are no finite numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    usual = (1,) if picture.mode == "F" else (255, 65535)
    return low, next((white for white in usual if low == 0 and high <= white), high if high > low else low + 1)
