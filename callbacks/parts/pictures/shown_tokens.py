"""Tokens as they are drawn: what they are called, bytes that are no character by themselves, and nothing invisible."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import lightning.pytorch as pl

from touchstone.runs.of_trainer import of_data

_OF_BYTES = tuple(bytes([byte]).decode(errors="replace") for byte in range(256))
_AS_THEY_ARE = tuple(bytes([byte]).decode(errors="surrogateescape") for byte in range(256))


def token_names(trainer: pl.Trainer) -> tuple[str, ...] | None:
    """What the vocabulary of a run's data module calls its tokens, None where there is none.

    Where they are bytes, those from 128 on, which are no character, are told apart as Python does it in names of files
    (PEP 383): the byte 0xe4 is the character U+DCE4.
    """
    names = getattr(of_data(trainer, "vocabulary"), "names", None)
    return _AS_THEY_ARE if names == _OF_BYTES else names


def is_byte(token: str) -> bool:
    """Whether a name is that of a byte from 128 on."""
    return len(token) == 1 and "\udc80" <= token <= "\udcff"


def joined_bytes(tokens: Sequence[str]) -> str:
    """Bytes as the characters that they are the UTF-8 of; what is none stays a byte."""
    return "".join(tokens).encode(errors="surrogateescape").decode(errors="surrogateescape")


def visible(token: str, *, family: str, spaces: bool) -> str:
    """A token in which everything can be seen: what the font has no sign for is written as its escape.

    Args:
        token: its name.
        family: of the font, such as `"monospace"`.
        spaces: whether those are to be seen, too.
    """
    token = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    if spaces:
        token = token.replace(" ", "\N{OPEN BOX}")
    return "".join(_visible(character, family) for character in token)


@cache
def _visible(character: str, family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    if is_byte(character):
        return character.encode(errors="surrogateescape").decode(errors="backslashreplace")
    font = get_font(findfont(FontProperties(family=[family])))
    if character.isprintable() and font.get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()
