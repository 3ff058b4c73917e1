"""`class_by_name`: a class by its number, its name, or a part of its name; `check_class`: whether it may be one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from unicodedata import normalize

from touchstone.options import is_whole_number

NUM_LISTED = 30  # classes that a message names

ALREADY = "is one already"
"""What is said of a picture that is seen as the class before anything is done to it."""


def check_class(call: str, wanted: object) -> None:
    """Raises ValueError where what a class is called by is neither a number nor a text; the message begins with `call`.

    Whether there is such a class is for `class_by_name` to say, where the classes are known.
    """
    if not isinstance(wanted, str) and not is_whole_number(wanted):
        raise ValueError(f"{call} must be the number or the name of a class, got {wanted!r:.80}")


def class_by_name(wanted: str | int, names: Sequence[str] | None, call: str) -> int:
    """The number of a class.

    Args:
        wanted: its number, also as text; its name; or a part of one name only, in any case of letters. A name in its
            own case comes first. What is the number of one class and the name of another is refused, as a number too,
            which the parser of a config makes of a text of digits; so is a name that is a word of a longer one, as
            "crane" of "crane bird". In a pair of double quotes, a name is nothing else.
        names: of the classes; None where they have none.
        call: what asks, for the message.

    Raises:
        ValueError: there is no such class, or the name fits several, which are listed.
    """
    text = str(wanted).strip()
    number = int(text) if re.fullmatch("-?[0-9]+", text) else None
    is_a_class = number is not None and number >= 0 and (names is None or number < len(names))
    if number is not None and (is_a_class or text not in (names or ())):
        if not is_a_class:
            allowed = "a class number >= 0" if names is None else f"a class, 0 to {len(names) - 1}"
            raise ValueError(f"{call} must be {allowed}, got {number}")
        _check_one_reading(text, number, names, call)
        return number
    if names is None:
        raise ValueError(f"{call} must be a number, since the data module has no class_names, got {wanted!r}")
    text = normalize("NFC", text)
    plain = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    composed = [normalize("NFC", name) for name in names]  # where a folder is named in letters and accents apart
    folded, wanted_folded = [name.casefold() for name in composed], plain.casefold()
    for fits in (
        [number for number, name in enumerate(composed) if name == text],
        [number for number, name in enumerate(composed) if name == plain],
        [number for number, name in enumerate(folded) if name == wanted_folded],
        [number for number, name in enumerate(folded) if wanted_folded in name],
    ):
        is_whole_name = len(fits) == 1 and folded[fits[0]] == wanted_folded and plain == text
        longer = _of_the_word(wanted_folded, folded) if is_whole_name else []
        if len(fits) == 1 and not longer:
            return fits[0]
        if fits:
            several = [*fits, *longer]
            listed = ", ".join(f"{names[number]} ({number})" for number in several[:NUM_LISTED])
            more = f" and {len(several) - NUM_LISTED} more" if len(several) > NUM_LISTED else ""
            alone = f"""; the first alone is {fits[0]} or '"{plain}"'""" if longer else ""
            raise ValueError(f"{call} must be one class, {plain!r} fits {len(several)}: {listed}{more}{alone}")
    near = difflib.get_close_matches(wanted_folded, folded, 5, 0)
    listed = ", ".join(names[folded.index(name)] for name in near)
    raise ValueError(f"{call} must be a class, there is no {wanted!r}; the nearest are {listed}")


def _of_the_word(word: str, names: Sequence[str]) -> list[int]:
    """Those of longer names in which it stands between spaces, hyphens and the like."""
    apart = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")
    return [number for number, name in enumerate(names) if name != word and apart.search(name)]


def _check_one_reading(text: str, number: int, names: Sequence[str] | None, call: str) -> None:
    """Raises ValueError where digits, read as a number, are the name of another class."""
    named = [place for place, name in enumerate(names or ()) if name == text]
    if names is not None and named and named != [number]:
        raise ValueError(
            f"{call} must be one class, {text!r} is the number of the class {names[number]!r} and the name of class "
            f"{named[0]}: a name in double quotes, as '\"{names[number]}\"' or '\"{text}\"', is no number"
        )
