"""`shown`: names that come from files, as they can be printed, drawn and put into tables."""

from __future__ import annotations


def shown(text: object, most: int | None = None) -> str:
    """A text in which nothing is invisible or acts on a terminal: control characters are written as their escapes.

    Args:
        text: such as a file's name, which may hold line breaks, escape sequences, or bytes that are no text.
        most: how many characters of it are shown, >= 1; None for all.
    """
    visible = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(text)
    )
    return visible if most is None or len(visible) <= most else visible[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
