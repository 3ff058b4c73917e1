"""The picture of an attack on texts: each text with the tokens that were flipped."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from .attack_picture import Attacked, captions, class_name
from .shown_tokens import is_byte, joined_bytes, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Characters of a line; points of one, in the monospaced font at 8 points: 7 pixels at 100 dpi, not a fraction.
_WIDTH, _CHARACTER, _LINE = 120, 5.04, 12.0


@dataclass(frozen=True)
class FlippedText:
    """A text before and after an attack.

    Attributes:
        before, after: its tokens as text, by `token_names`, equally many.
        caption: what the model says of it.
    """

    before: Sequence[str]
    after: Sequence[str]
    caption: str


def flipped_texts(
    attacked: Attacked, names: Sequence[str] | None, class_names: Sequence[str] | None
) -> list[FlippedText]:
    """What the model says of texts before and after an attack, in the names of tokens and classes, if they have any."""
    said = zip(
        captions(attacked.logits_before, attacked.label, class_names),
        captions(attacked.logits_after, attacked.label, class_names),
        strict=True,
    )
    texts = zip(attacked.before.tolist(), attacked.after.tolist(), attacked.label.tolist(), said, strict=True)

    def shown(tokens: list[int]) -> list[str]:
        return [str(token) if names is None else names[token] for token in tokens]

    return [
        FlippedText(shown(before), shown(after), f"{class_name(label, class_names)}: {first[0]} -> {second[0]}")
        for before, after, label, (first, second) in texts
    ]


def text_picture(texts: Sequence[FlippedText], *, title: str) -> Figure:
    """Draws texts under one another: a flipped token in grey, and behind it in red what it became.

    Tokens of more than one character stand apart. Bytes stand as the characters that they are, where an attack left
    all of one.
    """
    from matplotlib.figure import Figure

    heading = textwrap.wrap(f"{title} (grey: flipped, red: into what)", _WIDTH)
    lines: list[list[tuple[str, str]]] = [[(line, "black")] for line in heading]
    for text in texts:
        lines += [[], *([(line, "dimgrey")] for line in textwrap.wrap(text.caption, _WIDTH)), *_wrapped(_pieces(text))]
    height = (len(lines) + 1) * _LINE
    figure = Figure(figsize=((_WIDTH + 2) * _CHARACTER / 72, height / 72), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    for number, line in enumerate(lines):
        column = 1
        for piece, color in line:
            axes.text(column, -number - 1, piece, color=color, fontsize=8, family="monospace", parse_math=False)
            column += len(piece)
    axes.set_xlim(0, _WIDTH + 2)
    axes.set_ylim(-len(lines) - 0.7, 0.3)
    axes.axis("off")
    return figure


def _pieces(text: FlippedText) -> list[tuple[str, str]]:
    """The text as coloured pieces, none of which is to be broken."""
    space = " " if any(len(token) > 1 for token in text.before) else ""
    pieces = []
    for before, after in _of_characters(text):
        if not before + after:
            continue  # padding
        flipped = before != after
        colored = [(before, "darkgrey"), (after, "crimson")] if flipped else [(before, "black")]
        pieces += [(visible(token, family="monospace", spaces=flipped) + space, color) for token, color in colored]
    return pieces


def _of_characters(text: FlippedText) -> list[tuple[str, str]]:
    """Its tokens before and after, those bytes joined that make a character in both."""
    pairs: list[tuple[str, str]] = []
    for left, some in groupby(
        zip(text.before, text.after, strict=True), key=lambda pair: pair[0] == pair[1] and is_byte(pair[0])
    ):
        pairs += [(one, one) for one in joined_bytes([before for before, _ in some])] if left else some
    return pairs


def _wrapped(pieces: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    lines: list[list[tuple[str, str]]] = [[]]
    for piece, color in pieces:
        if sum(len(other) for other, _ in lines[-1]) + len(piece) > _WIDTH:
            lines.append([])
        lines[-1].append((piece[:_WIDTH], color))
    return lines
