"""`read_picture`: a picture file of any kind that people have, as upright RGB."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from PIL import Image

from .strips import strip_converter, strips

HEIC = (".heic", ".heif", ".hif")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif", b"mif1", b"msf1")
"""Of ISO 23008-12, in the box `ftyp` that a file begins with; the last two are also those of some AVIF."""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA", "QOI")
"""What is opened, as Pillow calls it: neither programs, as EPS, nor files that hold others, as icons."""
WHOLE = ("WEBP", "AVIF", "HEIF", "JPEG2000")
"""Whose decoders hold a picture several times; of others `_is_held_whole` knows which."""
MAX_PIXELS = 100_000_000  # the photographs of phones have up to 200 million, at half size 50
KEPT_PIXELS = 25_000_000  # more are of no use to a net, and of much use to no figure
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation of EXIF."""
ORIENTATION = 0x0112
BITS, COMPRESSION, ROWS_OF_STRIP, ROWS_OF_TILE = 258, 259, 278, 323
"""Tags of TIFF."""
_OF_THE_PROCESS = Lock()


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> Image.Image:
    """Reads one picture: turned as its EXIF data say, without transparency (on white), 8 bits a channel.

    Grey, palette, CMYK and 16-bit pictures become RGB; of an animation it is the first frame. Grey values of more than
    16 bits, or floats beyond [0, 1], are scaled so that the largest is white. A picture of more than 25 million pixels
    comes out smaller by a whole factor. Reading takes less than 1 GB: of WebP, AVIF, HEIC, JPEG 2000, progressive JPEG,
    and TIFF of more than 32 bits a pixel that is packed in one piece, whose decoders hold a picture several times, half
    as many pixels are read.

    Args:
        path: a file of a kind that cameras, phones and browsers write; HEIC where pillow-heif is installed.
        max_pixels: larger pictures are refused before they are decoded, >= 1.
        content: the file's bytes, where they are at hand already.

    Raises:
        ValueError: the file cannot be read, or is larger; the message says why, and does not name the file.
    """
    try:
        if content is None and path.exists() and not path.is_file():
            raise ValueError("it is no file but a folder, a pipe or a device")
        if _is_heic(path, content):
            _register_heic()
        with _pillow_allows(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about sizes, which are checked here, and about odd metadata
            with Image.open(path if content is None else io.BytesIO(content), formats=_formats()) as file:
                width, height = file.size
                most = max_pixels // 2 if _is_held_whole(file) else max_pixels
                if width * height > most:
                    raise ValueError(f"it has {width} x {height} pixels, more than {most:,}: a bomb?")
                file.load()
                return _upright(_as_rgb(file), _orientation(file))
    except Image.DecompressionBombError:
        raise ValueError(f"it has far more than {max_pixels:,} pixels: a bomb?") from None
    except Image.UnidentifiedImageError:
        if _is_heic(path, content) and "HEIF" not in Image.OPEN:
            raise ValueError("HEIC pictures need a library: python -m pip install pillow-heif") from None
        raise ValueError("it is no picture, of no kind that is read, or damaged") from None
    except FileNotFoundError as error:  # as of a link that leads nowhere
        raise ValueError("No such file") from error
    except Exception as error:  # decoders raise whatever they meet in a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(reason.replace(f" '{path}'", "").replace(f" {str(path)!r}", "")) from error


def picture_suffixes() -> set[str]:
    """The ends of the names of files that are taken for pictures, in small letters, with the dot."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")} | {*HEIC}


@contextmanager
def _pillow_allows(num_pixels: int) -> Iterator[None]:
    """Inside, the limit of Pillow itself, which is one for the whole process, refuses no picture of so many pixels."""
    if num_pixels <= MAX_PIXELS:  # less than Pillow's: no thread need wait for another
        yield
        return
    with _OF_THE_PROCESS:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if before is None else max(before, num_pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _formats() -> list[str]:
    Image.init()
    return [kind for kind in FORMATS if kind in Image.OPEN]


def _is_held_whole(file: Image.Image) -> bool:
    """Whether the decoder holds the whole picture beside that of Pillow, as it is packed or as coefficients."""
    tags = getattr(file, "tag_v2", {})
    rows = min(tags.get(ROWS_OF_STRIP, tags.get(ROWS_OF_TILE, file.height)), file.height)  # in one piece
    is_large_piece = tags.get(COMPRESSION, 1) != 1 and rows * sum(tags.get(BITS, (1,))) > 32 * file.height
    return file.format in WHOLE or "progressive" in file.info or is_large_piece


def _as_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, strip by strip, so that no copy in between is whole."""
    width, height = picture.size
    factor = math.ceil(math.sqrt(max(1.0, width * height / KEPT_PIXELS)))
    whole = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    convert = strip_converter(picture)
    for top, strip in strips(picture, multiple_of=factor):
        rgb = convert(strip)
        whole.paste(rgb if factor == 1 else rgb.reduce(factor), (0, top // factor))
    return whole


def _orientation(picture: Image.Image) -> int:
    """What EXIF says of it, 1 where it says nothing that makes sense."""
    with suppress(Exception):  # of Pillow, which raises many kinds of broken metadata
        found = picture.getexif().get(ORIENTATION, 1)
        return int(found[0] if isinstance(found, tuple) else found)
    return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    turn = UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _is_heic(path: Path, content: bytes | None) -> bool:
    """By its name, or by what it begins with: some that are sent on are called .jpg."""
    if path.suffix.lower() in HEIC:
        return True
    if content is None:
        with path.open("rb") as file:
            content = file.read(12)
    return content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS


def _register_heic() -> None:
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
