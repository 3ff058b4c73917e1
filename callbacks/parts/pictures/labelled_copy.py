"""`labelled_copy`: a picture with lines of text above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .shown_tokens import visible

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 1024  # pixels of the longer side
FAMILY = "sans-serif"  # that of the figures, since Pillow's own font knows English letters alone


def labelled_copy(picture: Image, lines: Sequence[str]) -> Image:
    """A copy at most `LARGEST` pixels long, below a white band with the lines in black, whole at any width.

    What the font has no sign for is written as its escape.
    """
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import Image, ImageDraw, ImageFont

    copy = picture.copy()
    copy.thumbnail((LARGEST, LARGEST))
    size = max(14, copy.height // 25)
    font = ImageFont.truetype(findfont(FontProperties(family=[FAMILY])), size)
    lines = [visible(line, family=FAMILY, spaces=False) for line in lines]
    widest = max((font.getlength(line) for line in lines), default=0)
    width = max(copy.width, int(widest) + size)
    band = int(1.3 * size) * len(lines) + size // 2
    labelled = Image.new("RGB", (width, copy.height + band), "white")
    labelled.paste(copy, ((width - copy.width) // 2, band))
    draw = ImageDraw.Draw(labelled)
    for number, line in enumerate(lines):
        draw.text((size // 2, size // 4 + int(1.3 * size) * number), line, fill="black", font=font)
    return labelled
