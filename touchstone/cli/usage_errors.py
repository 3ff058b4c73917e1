"""What is wrong with what the user gave, in words: the key, where it stands, and the nearest valid name.

jsonargparse reports the failure of every branch of a nested union, and no line. So when it fails, the tree of what was
given is walked once more, and the first thing that the parser's own knowledge contradicts is named.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from .class_paths import find, several
from .class_slips import no_field, undefined
from .failures import message_lines
from .given import COMMAND_LINE, SPEC_KEYS, Given
from .mistakes import UsageError, nearest

WORDS = {
    PositiveInt: "an integer above 0",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


@dataclass(frozen=True)
class Refused:
    """What a parser does not take, and what it said of it."""

    said: str


def explain(parser: ArgumentParser, given: Given, error: Exception, *, construct: bool = False) -> UsageError:
    """What is wrong, in one line.

    Args:
        parser: the parser of the subcommand.
        given: what it was to parse.
        error: how it failed.
        construct: whether it failed while it constructed objects; then they are constructed once more, the innermost
            first, to see which of them refuses.
    """
    problem = next(_Search(_hints(parser), construct).run(given), None)
    if problem is None:
        trainer = given.value.get("trainer", Given({}, given.place))
        problem = (_at_its_key(trainer, error) or _at_its_value(trainer, error, "trainer")) if construct else None
        key = re.match(r'Parser key "(.+)":', str(error))
        problem = problem or (f"{key[1]}: " if key else "") + in_one_line(error)
    return UsageError(problem)


def describe(hint: Any) -> str:
    """A type in words."""
    if choices := _choices(hint):
        return f"one of {', '.join(dict.fromkeys(choices))}"
    return " or ".join(WORDS.get(member) or re.sub(r"\b\w+\.(?=\w)", "", _name(member)) for member in _members(hint))


@dataclass(frozen=True)
class _Search:
    """The problems of a tree, the innermost first."""

    hints: Mapping[str, Any]
    construct: bool

    def run(self, given: Given) -> Iterator[str]:
        yield from self.keys(given, "")
        if "model" not in given.value or given.value["model"].value is None:
            yield "no model is given: a config needs `model:` with a class_path (--config configs/NAME.yaml)"

    def keys(self, given: Given, group: str) -> Iterator[str]:
        """Problems of the keys below `group`, which is empty or ends with a dot."""
        for name, child in given.value.items():
            key = group + name
            if any(known.startswith(f"{key}.") for known in self.hints):
                if isinstance(child.value, dict):
                    yield from self.keys(child, f"{key}.")
                elif child.value is not None:
                    yield f"{child.place}: {key} must hold keys, got {_short(child)}"
            elif key in self.hints:
                yield from self.value(child, self.hints[key], key)
            else:
                beside = {known[len(group) :].split(".")[0] for known in self.hints if known.startswith(group)}
                if not group and child.place == COMMAND_LINE:
                    beside.add("config")
                elsewhere = [known for known in self.hints if known.endswith(f".{name}")]
                near = f"; did you mean {elsewhere[0]!r}?" if elsewhere else nearest(name, beside)
                yield f"{child.place}: {f'{group[:-1]} has' if group else 'there is'} no key {name!r}{near}"

    def value(self, given: Given, hint: Any, key: str) -> Iterator[str]:
        """Problems of a value of type `hint`, None where the type is not known."""
        value = given.value
        if isinstance(value, dict) and "class_path" in value:
            yield from self.spec(given, hint, key)
        elif isinstance(value, dict):
            if "init_args" in value:
                for name, child in value.items():
                    if name not in SPEC_KEYS:
                        yield f"{child.place}: {key} has no key {name!r}{nearest(name, SPEC_KEYS)}"
                yield f"{given.place}: {key} has init_args and no class_path"
            for name, child in value.items():
                yield from self.value(child, _hint_of_items(hint), f"{key}.{name}")
        elif isinstance(value, list):
            for position, child in enumerate(value):
                yield from self.value(child, _hint_of_items(hint), f"{key}.{position}")
        elif value is None and not {None, Any, type(None)} & set(_members(hint)):  # which a parser lets pass
            yield f"{given.place}: {key} must be {describe(hint)}, got null"
        taken = given.plain() if hint is None else _taken(hint, given)
        if not isinstance(taken, Refused):
            if self.construct and isinstance(value, str) and isinstance(taken, Namespace):  # the name of a class
                yield from self.spec(Given({"class_path": given}, given.place), hint, key)
            return
        members, choices = _members(hint), _choices(hint)
        names_a_class = any(map(_is_class, members)) or _is_callable(hint)
        if isinstance(value, str) and names_a_class and not {int, float, bool} & set(members):
            yield from self.spec(Given({"class_path": given}, given.place), hint, key)
        name = value.get("class_path", given).value if isinstance(value, dict) else value
        if isinstance(name, str) and (ambiguous := several(name, taken.said)):
            yield f"{given.place}: {key}: {ambiguous}"
        is_of_one = isinstance(value, dict) and not _hint_of_items(hint) and not all(map(str.isdigit, value))
        if is_of_one and names_a_class and "class_path" not in value:
            keys = ", ".join(map(repr, value))
            is_in_a_list = any(map(str.isdigit, key.split(".")))  # whose items are no options of their own
            way_out = "class_path" if is_in_a_list else f"--{key} CLASS, or by class_path in a config"
            yield f"{given.place}: {key} has {keys} and no class: name it by {way_out}"
        near = nearest(value, choices) if isinstance(value, str) and choices else ""
        yield f"{given.place}: {key} must be {describe(hint)}, got {_short(given)}{near}"

    def spec(self, given: Given, hint: Any, key: str) -> Iterator[str]:
        """Problems of a class_path with its init_args."""
        for name, child in given.value.items():
            if name not in SPEC_KEYS:
                yield f"{child.place}: {key} has no key {name!r} beside class_path{nearest(name, SPEC_KEYS)}"
        path, arguments = given.value["class_path"], given.value.get("init_args", Given({}, given.place))
        try:
            found = find(str(path.value))
        except LookupError as error:
            yield f"{path.place}: {key}: {error}"
            return
        bases = tuple(member for member in _members(hint) if _is_class(member) and not typing.get_args(member))
        if bases and inspect.isclass(found) and not issubclass(found, bases):
            yield f"{path.place}: {key} must be {describe(hint)}, {found.__name__} is not"
            return
        if bases and (missing := undefined(found)):
            yield f"{path.place}: {key}: {missing}"
            return
        if not isinstance(arguments.value, dict):
            if arguments.value is not None:
                yield f"{arguments.place}: {key}.init_args must hold keys, got {_short(arguments)}"
            return
        parser = ArgumentParser(exit_on_error=False)
        try:
            parser.add_class_arguments(found, "it", fail_untyped=False)
        except Exception:  # a signature that jsonargparse cannot read: it knows better than this search
            return
        hints = {name.removeprefix("it."): hint for name, hint in _hints(parser).items()}
        for name, child in arguments.value.items():
            is_group = any(known.startswith(f"{name}.") for known in hints)  # a dataclass, by its fields
            if is_group and isinstance(child.value, dict) and "class_path" not in child.value:
                yield from _Search(hints, self.construct).keys(child, f"{name}.")
            elif name in hints:
                yield from self.value(child, hints[name], f"{key}.{name}")
            else:
                slip = no_field(found, name)
                remedy = f": {slip}" if slip else nearest(name, hints)
                yield f"{child.place}: {found.__name__} has no parameter {name!r}{remedy}"
        for name, parameter in _given_at_once(found, hint):
            is_given = name in arguments.value or "dict_kwargs" in given.value
            if not is_given and parameter.default is parameter.empty and name in hints:
                yield f"{path.place}: {found.__name__} needs the parameter {name!r}"
        if self.construct and not _is_callable(hint):
            try:
                parser.instantiate_classes(parser.parse_object({"it": arguments.plain()}))
            except Exception as error:
                yield _at_its_key(arguments, error) or f"{path.place}: {key}: {in_one_line(error)}"


def _hints(parser: ArgumentParser) -> dict[str, Any]:
    """The keys of a parser with their types, None for those that have none."""
    own = ("help", "config", "print_config", "it")
    return {
        action.dest: getattr(action, "_typehint", None)
        for action in parser._actions
        if action.dest not in own and not action.dest.endswith(".help")
    }


def _taken(hint: Any, given: Given) -> Any:
    """What a parser makes of a value of this type, `Refused` where it does not take it."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except ValueError:  # a type that jsonargparse takes in a signature only
        return given.plain()
    try:
        return parser.parse_object({"value": given.plain()}).value
    except Exception as error:
        return Refused(str(error))


def _at_its_key(given: Given, error: Exception) -> str | None:
    """The message of a constructor, at the place of the argument that it writes as `key=`, else first names."""
    message = in_one_line(error)
    for end in ("=", r"\b"):
        for name, child in _arguments(given):
            if re.search(rf"\b{re.escape(name)}{end}", message):
                return f"{child.place}: {message}"
    return None


def _arguments(given: Given) -> Iterator[tuple[str, Given]]:
    """Of a constructor, and of the groups of options among them, such as `sampling`."""
    yield from given.value.items()
    for child in given.value.values():
        if isinstance(child.value, dict) and not set(child.value) & set(SPEC_KEYS):
            yield from _arguments(child)


def _at_its_value(given: Given, error: Exception, key: str) -> str | None:
    """The message of a constructor that names no argument, at the place of the text that it repeats."""
    message = in_one_line(error)
    for name, child in given.value.items():
        value = child.value
        if isinstance(value, str) and value and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message):
            return f"{child.place}: {key}.{name}: {message}"
    return None


def in_one_line(error: BaseException) -> str:
    """The message of an error; where it lists the failures of a union, that of the innermost."""
    while "\n" in str(error).strip() and (cause := error.__cause__ or error.__context__):
        error = cause
    return message_lines(error)[0]


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _choices(hint: Any) -> list[str]:
    literals = (member for member in _members(hint) if typing.get_origin(member) is typing.Literal)
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def _is_class(hint: Any) -> bool:
    hint = _hint_of_items(hint) or hint
    if not inspect.isclass(hint) or hint.__module__ == "builtins" or getattr(hint, "_is_protocol", False):
        return False
    return {int, float, str}.isdisjoint(hint.__mro__)  # as that of jsonargparse's `PositiveInt`


def _is_callable(hint: Any) -> bool:
    return any(typing.get_origin(member) is collections.abc.Callable for member in _members(hint))


def _given_at_once(found: Any, hint: Any) -> list[tuple[str, inspect.Parameter]]:
    """The parameters of a class but those that it gets when it is constructed later, as an optimizer its weights."""
    callables = [typing.get_args(member) for member in _members(hint) if _is_callable(member)]
    if any(not of_callable or not isinstance(of_callable[0], list) for of_callable in callables):
        return []  # it may get any
    num_later = len(callables[0][0]) if callables else 0
    return list(inspect.signature(found).parameters.items())[num_later:]


def _hint_of_items(hint: Any) -> Any:
    """The type of the values of a dict or the items of a list."""
    for member in _members(hint):
        if typing.get_origin(member) in (dict, list, collections.abc.Mapping, collections.abc.Sequence):
            return typing.get_args(member)[-1]
    return None


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _short(given: Given) -> str:
    return reprlib.repr(given.plain())
