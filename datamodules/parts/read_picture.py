"""`read_picture`: a picture file of any kind that people have, as upright RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HEIC = (".heic", ".heif")
MAX_PIXELS = 100_000_000  # 300 MB as RGB; the photographs of phones have up to 200 million, at half size 50


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> Image.Image:
    """Reads one picture: turned as its EXIF data say, without transparency (on white), 8 bits a channel.

    Grey, palette, CMYK and 16-bit pictures become RGB; of an animation it is the first frame.

    Args:
        path: a file that Pillow can read; HEIC where pillow-heif is installed.
        max_pixels: larger pictures are refused before they are decoded, >= 1.
        content: the file's bytes, where they are at hand already.

    Raises:
        ValueError: the file cannot be read, or is larger; the message says why, and does not name the file.
    """
    if path.suffix.lower() in HEIC:
        _register_heic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about sizes, which are checked here, and about odd metadata
            with Image.open(path if content is None else io.BytesIO(content)) as file:
                width, height = file.size
                if width * height > max_pixels:
                    raise ValueError(f"it has {width} x {height} pixels, more than {max_pixels:,}: a bomb?")
                return _as_rgb(ImageOps.exif_transpose(file))
    except Image.DecompressionBombError:
        raise ValueError(f"it has far more than {max_pixels:,} pixels: a bomb?") from None
    except Exception as error:  # decoders raise whatever they meet in a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(reason.replace(f" '{path}'", "").replace(f" {str(path)!r}", "")) from error


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = Image.fromarray(_eight_bits(np.asarray(picture).astype(np.float64), picture.mode))
    if picture.mode == "P" and "transparency" not in picture.info:
        picture = picture.convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of 16 bits, of shares of 1, or of 8 bits kept in a wider type, as bytes."""
    largest = float(values.max(initial=0))
    if mode.startswith("I;16") or largest > 255:
        values = values / 257
    elif mode == "F" and largest <= 1:
        values = values * 255
    return values.round().clip(0, 255).astype(np.uint8)


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ValueError("HEIC pictures need a library: pip install pillow-heif") from None
    register_heif_opener()
