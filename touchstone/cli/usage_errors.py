"""What is wrong with what the user gave, in words: the key, where it stands, and the nearest valid name.

jsonargparse reports the failure of every branch of a nested union, and no line. So when it fails, the tree of what was
given is walked once more, and the first thing that the parser's own knowledge contradicts is named.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import isclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from .class_paths import find, several
from .class_slips import no_field, undefined
from .failures import message_lines
from .given import COMMAND_LINE, SPEC_KEYS, Given
from .hints import bases, choices, describe, given_at_once, is_callable, members, names_a_class, of_items
from .mistakes import UsageError, nearest


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
        yield from self.inside(given, hint, key)
        taken = given.plain() if hint is None else _taken(hint, given)
        if isinstance(taken, Refused):
            yield from self.refused(given, hint, key, taken)
        elif self.construct and isinstance(given.value, str) and isinstance(taken, Namespace):  # the name of a class
            yield from self.spec(Given({"class_path": given}, given.place), hint, key)

    def inside(self, given: Given, hint: Any, key: str) -> Iterator[str]:
        """Problems of what a value holds, and of a null that a parser lets pass."""
        value = given.value
        if isinstance(value, dict) and "class_path" in value:
            yield from self.spec(given, hint, key)
            return
        if isinstance(value, dict) and "init_args" in value:
            yield from _astray(given, key, "")
            yield f"{given.place}: {key} has init_args and no class_path"
        if value is None and not {None, Any, type(None)} & set(members(hint)):
            yield f"{given.place}: {key} must be {describe(hint)}, got null"
        children = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        for name, child in children:
            yield from self.value(child, of_items(hint), f"{key}.{name}")

    def refused(self, given: Given, hint: Any, key: str, refused: Refused) -> Iterator[str]:
        """Why a parser may have refused a value: as a class that nothing is known of, else as what it is."""
        value, is_for_classes = given.value, names_a_class(hint)
        if isinstance(value, str) and is_for_classes and not {int, float, bool} & set(members(hint)):
            yield from self.spec(Given({"class_path": given}, given.place), hint, key)
        name = value.get("class_path", given).value if isinstance(value, dict) else value
        if isinstance(name, str) and (ambiguous := several(name, refused.said)):
            yield f"{given.place}: {key}: {ambiguous}"
        is_of_one = isinstance(value, dict) and not of_items(hint) and not all(map(str.isdigit, value))
        if is_of_one and is_for_classes and "class_path" not in value:
            keys = ", ".join(map(repr, value))
            is_in_a_list = any(map(str.isdigit, key.split(".")))  # whose items are no options of their own
            way_out = "class_path" if is_in_a_list else f"--{key} CLASS, or by class_path in a config"
            yield f"{given.place}: {key} has {keys} and no class: name it by {way_out}"
        words = choices(hint) if isinstance(value, str) else []
        near = nearest(value, words) if words else ""
        yield f"{given.place}: {key} must be {describe(hint)}, got {_short(given)}{near}"

    def spec(self, given: Given, hint: Any, key: str) -> Iterator[str]:
        """Problems of a class_path with its init_args."""
        yield from _astray(given, key, " beside class_path")
        path, arguments = given.value["class_path"], given.value.get("init_args", Given({}, given.place))
        try:
            found = find(str(path.value))
        except LookupError as error:
            yield f"{path.place}: {key}: {error}"
            return
        if unfit := _unfit(found, hint):
            yield f"{path.place}: {key}{unfit}"
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
        yield from self.arguments(found, arguments, hints, key)
        for name, parameter in given_at_once(found, hint) if "dict_kwargs" not in given.value else ():
            if name not in arguments.value and parameter.default is parameter.empty and name in hints:
                yield f"{path.place}: {found.__name__} needs the parameter {name!r}"
        if self.construct and not is_callable(hint):
            try:
                parser.instantiate(parser.parse_object({"it": arguments.plain()}))
            except Exception as error:
                yield _at_its_key(arguments, error) or f"{path.place}: {key}: {in_one_line(error)}"

    def arguments(self, found: Any, arguments: Given, hints: Mapping[str, Any], key: str) -> Iterator[str]:
        """Problems of the arguments of a class, whose parameters have the types `hints`."""
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


def _astray(given: Given, key: str, beside: str) -> Iterator[str]:
    """Keys that have no place beside those of a class."""
    for name, child in given.value.items():
        if name not in SPEC_KEYS:
            yield f"{child.place}: {key} has no key {name!r}{beside}{nearest(name, SPEC_KEYS)}"


def _unfit(found: Any, hint: Any) -> str | None:
    """Why a class is none for an option of this type, as it stands behind the key; None where it may be."""
    wanted = bases(hint)
    if wanted and isclass(found) and not issubclass(found, wanted):
        return f" must be {describe(hint)}, {found.__name__} is not"
    missing = undefined(found) if wanted else None
    return f": {missing}" if missing else None


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


def _short(given: Given) -> str:
    return reprlib.repr(given.plain())
