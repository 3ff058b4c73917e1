"""What the types of options are: in words, as classes, and as lists and dicts of other types."""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from typing import Any

from jsonargparse.typing import PositiveInt

WORDS = {
    PositiveInt: "an integer above 0",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def describe(hint: Any) -> str:
    """A type in words."""
    if words := choices(hint):
        return f"one of {', '.join(dict.fromkeys(words))}"
    return " or ".join(WORDS.get(member) or re.sub(r"\b\w+\.(?=\w)", "", _name(member)) for member in members(hint))


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of any other type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def choices(hint: Any) -> list[str]:
    """The words of a `Literal`, none where there is none."""
    literals = (member for member in members(hint) if typing.get_origin(member) is typing.Literal)
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def of_items(hint: Any) -> Any:
    """The type of the values of a dict or the items of a list; None where it is neither."""
    for member in members(hint):
        if typing.get_origin(member) in (dict, list, collections.abc.Mapping, collections.abc.Sequence):
            return typing.get_args(member)[-1]
    return None


def bases(hint: Any) -> tuple[type, ...]:
    """The classes of which an instance will do."""
    return tuple(member for member in members(hint) if _is_class(member) and not typing.get_args(member))


def names_a_class(hint: Any) -> bool:
    """Whether a text may be the name of a class, or of each of several."""
    return any(map(_is_class, members(hint))) or is_callable(hint)


def is_callable(hint: Any) -> bool:
    """Whether it is constructed later, as an optimizer that is yet to get its weights."""
    return any(typing.get_origin(member) is collections.abc.Callable for member in members(hint))


def given_at_once(found: Any, hint: Any) -> list[tuple[str, inspect.Parameter]]:
    """The parameters of a class but those that it gets when it is constructed later."""
    callables = [typing.get_args(member) for member in members(hint) if is_callable(member)]
    if any(not of_callable or not isinstance(of_callable[0], list) for of_callable in callables):
        return []  # it may get any
    num_later = len(callables[0][0]) if callables else 0
    return list(inspect.signature(found).parameters.items())[num_later:]


def _is_class(hint: Any) -> bool:
    hint = of_items(hint) or hint
    if not inspect.isclass(hint) or hint.__module__ == "builtins" or getattr(hint, "_is_protocol", False):
        return False
    return {int, float, str}.isdisjoint(hint.__mro__)  # as that of jsonargparse's `PositiveInt`


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
