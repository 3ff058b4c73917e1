"""`page`: sections with commands, pictures and tables as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

LARGEST_PNG = 200_000  # bytes; what is larger is a photograph, and smaller as JPEG
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
figure { margin: 1.5em 0 } figcaption { color: #555 } img { max-width: 100%; height: auto }
pre { background: #f4f4f4; padding: .6em; overflow-x: auto } table { border-collapse: collapse; font-size: 14px }
td, th { border: 1px solid #ddd; padding: .2em .5em; text-align: left }
.wide { overflow-x: auto }
"""


@dataclass(frozen=True)
class Picture:
    """A picture in a section.

    Attributes:
        file: it is read from there.
        caption: what is to be seen, in words.
    """

    file: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: what is to be seen in it.
        command: what makes it.
        pictures: in the order of the page.
        tables: `.csv` files, shown whole.
        listing: lines of plain text.
    """

    title: str
    text: str
    command: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Path] = ()
    listing: str = field(default="", repr=False)


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as text; pictures are inside it, and nothing is loaded from elsewhere."""
    links = "".join(f'<li><a href="#{number}">{_text(s.title)}</a></li>' for number, s in enumerate(sections))
    parts = "".join(_section(section, number) for number, section in enumerate(sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{_text(title)}</h1><ul>{links}</ul>{parts}</body></html>\n"
    )


def as_web_picture(file: Path) -> tuple[bytes, str]:
    """The bytes of a picture and the ending that says what they are, `png` or `jpg`; large ones as JPEG."""
    content = file.read_bytes()
    if file.suffix == ".png" and len(content) <= LARGEST_PNG:
        return content, "png"
    with Image.open(file) as picture:
        smaller = io.BytesIO()
        picture.convert("RGB").save(smaller, "JPEG", quality=85)
    return smaller.getvalue(), "jpg"


def _section(section: Section, number: int) -> str:
    command = f"<pre>{_text(section.command)}</pre>" if section.command else ""
    listing = f"<pre>{_text(section.listing)}</pre>" if section.listing else ""
    shown = "".join(map(_figure, section.pictures)) + "".join(map(_table, section.tables))
    return f'<h2 id="{number}">{_text(section.title)}</h2><p>{_text(section.text)}</p>{command}{shown}{listing}\n'


def _figure(picture: Picture) -> str:
    content, ending = as_web_picture(picture.file)
    kind = {"png": "image/png", "jpg": "image/jpeg"}[ending]
    encoded, caption = base64.b64encode(content).decode(), _text(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:{kind};base64,{encoded}"><figcaption>{caption}</figcaption></figure>'
    )


def _table(file: Path) -> str:
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    if rows and rows[0][0] == "file":
        rows[1:] = [[Path(row[0]).name, *row[1:]] for row in rows[1:]]
    lines = [_row(cells, "th" if number == 0 else "td") for number, cells in enumerate(rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
