"""`Given`: what the user gave, configs and options in one tree, where each value knows its place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .loader import Loader
from .mistakes import UsageError, nearest_file

SPEC_KEYS = ("class_path", "init_args", "dict_kwargs")
COMMAND_LINE = "command line"
MOST_VALUES = 100_000


class _Loader(Loader):
    num_values = 0


@dataclass(frozen=True)
class Given:
    """A value, and where it stands.

    Attributes:
        value: a dict or a list of `Given`, or a plain value.
        place: such as `"configs/digits.yaml, line 12"` or `"command line"`.
    """

    value: Any
    place: str

    def plain(self) -> Any:
        """The value without the places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def updated(self, new: Given) -> Given:
        """This value where `new` is silent, as jsonargparse merges configs and options."""
        old = self
        if isinstance(new.value, dict) and isinstance(old.value, list) and old.value:  # an option of the last item
            return Given([*old.value[:-1], old.value[-1].updated(new)], old.place)
        if isinstance(new.value, dict) and isinstance(old.value, str):  # a class path on its own
            old = Given({"class_path": old}, old.place)
        if not (isinstance(new.value, dict) and isinstance(old.value, dict)):
            return new
        added = new.value
        if "class_path" in old.value and not set(added) & set(SPEC_KEYS):  # --model.width for --model.init_args.width
            added = {"init_args": new}
        if {"class_path"} <= set(added) & set(old.value) and added["class_path"].value != old.value["class_path"].value:
            return new
        merged = dict(old.value)
        for key, child in added.items():
            name = key.removesuffix("+")
            if name not in merged:
                merged[name] = child
            elif key.endswith("+"):
                merged[name] = Given([*_items(merged[name]), *_items(child)], child.place)
            else:
                merged[name] = merged[name].updated(child)
        return Given(merged, old.place)


def merge_given(arguments: Sequence[str]) -> Given:
    """The configs and options of a subcommand, the later ones over the earlier ones.

    Raises:
        UsageError: a config cannot be read, or adds to a class that a later one names, or an argument belongs to no
            option.
    """
    whole = Given({}, COMMAND_LINE)
    for name, text in _options(arguments):
        if name in ("config", "c"):
            whole = whole.updated(read_config(text or ""))
            _check_order(whole)
        elif text is not None and name != "print_config" and not name.endswith("help"):
            value = _file_or_value(text)
            for key in reversed(name.split(".")):
                value = Given({key: value}, COMMAND_LINE)
            whole = whole.updated(value)
    return whole


def _check_order(whole: Given) -> None:
    """A class must come before its parameters: jsonargparse takes no other order."""
    for key in ("model", "data"):
        given = whole.value.get(key)
        if given and isinstance(given.value, dict) and list(given.value) == ["init_args"]:
            where = "this config goes behind one that has it"
            raise UsageError(f"{given.place}: {key} has init_args and no class_path: {where}")


def check_configs(arguments: Sequence[str]) -> None:
    """Reads the configs before any other code does, which would fill the memory with aliases of aliases.

    Raises:
        UsageError: one cannot be read.
    """
    for name, text in _options(arguments):
        if name in ("config", "c"):
            read_config(text or "")


def replaced_callbacks(arguments: Sequence[str]) -> str | None:
    """In words, that a config takes away the callbacks of an earlier one, as YAML without a plus does."""
    earlier: Given | None = None
    for name, text in _options(arguments):
        if name not in ("config", "c"):
            continue
        trainer = read_config(text or "").value.get("trainer")
        callbacks = trainer.value.get("callbacks") if trainer and isinstance(trainer.value, dict) else None
        if callbacks is None:
            continue
        if earlier is not None and earlier.value:
            where = earlier.place.partition(",")[0]
            num = len(_items(earlier))
            return (
                f"{callbacks.place}: trainer.callbacks replaces the {num} callbacks of {where}; "
                "`callbacks+:` would append to them"
            )
        earlier = callbacks
    return None


def read_config(name: str) -> Given:
    """A config file, or the text of a config.

    Raises:
        UsageError: it cannot be read, or is no mapping; the message names the file and the line.
    """
    if not name:
        raise UsageError("--config needs a file, such as configs/digits.yaml")
    path = Path(name)
    if name.lstrip().startswith("{"):
        return _parse(name, COMMAND_LINE)
    if os.path.isdir(path):  # and not `path.is_dir()`, which fails where the name is too long
        raise UsageError(f"the config {name!r} is a folder, not a file")
    if os.path.exists(path) and not os.path.isfile(path):  # as a pipe, which gives its text once, if ever
        raise UsageError(f"the config {name!r} is no file: it is read more than once")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"the config {name!r} does not exist{nearest_file(path)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the config {name!r} is not a text file") from None
    except OSError as error:
        raise UsageError(f"the config {name!r} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UsageError(f"the config {name!r} is empty")
    return _parse(text, name)


def _parse(text: str, name: str) -> Given:
    try:
        loader = _Loader(text)  # which refuses control characters
        node = loader.get_single_node()
        given = None if node is None else _read(loader, node, name, f"{name}, line 1")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{line}: this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: this is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UsageError(f"{name}: it is nested too deep") from None
    if given is None or not isinstance(given.value, dict):
        raise UsageError(f"{name}: a config holds keys such as `model:` and `trainer:`, this one has none")
    return given


def _read(loader: _Loader, node: yaml.Node, name: str, place: str) -> Given:
    loader.num_values += 1
    if loader.num_values > MOST_VALUES:
        raise UsageError(f"{name}: a config holds at most {MOST_VALUES:,} values, what its aliases repeat included")
    if node.tag not in loader.yaml_constructors:
        loader.construct_undefined(node)
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, name)
        loader.flatten_mapping(node)
        children = {
            str(loader.construct_object(key)): _read(loader, value, name, f"{name}, line {key.start_mark.line + 1}")
            for key, value in node.value
        }
        return Given(children, place)
    if isinstance(node, yaml.SequenceNode):
        items = [_read(loader, item, name, f"{name}, line {item.start_mark.line + 1}") for item in node.value]
        return Given(items, place)
    return Given(loader.construct_object(node), place)


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    """Raises UsageError where a key stands twice: YAML would drop what stands at the first, as an attack of a suite."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":  # a merge
            continue
        if key.value in lines:
            raise UsageError(f"{name}, line {line}: the key {key.value!r} stands here and in line {lines[key.value]}")
        lines[key.value] = line


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options with their values, None for those that have none."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("-"):
            hint = f"; did you mean '--config {argument}'?" if os.path.isfile(argument) else ""
            raise UsageError(f"{COMMAND_LINE}: {argument!r} belongs to no option{hint}")
        name, equals, value = argument.lstrip("-").partition("=")
        if equals:
            yield name, value
        elif name != "print_config" and position < len(arguments) and not arguments[position].startswith("--"):
            yield name, arguments[position]
            position += 1
        else:
            yield name, None


def _file_or_value(text: str) -> Given:
    """The value of an option; `--model model.yaml` means what that file holds, whose keys keep their places."""
    if text.endswith((".yaml", ".yml", ".json")) and os.path.isfile(text):
        return Given(read_config(text).value, COMMAND_LINE)
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        value = text
    return _placed(value, COMMAND_LINE)


def _placed(value: Any, place: str) -> Given:
    if isinstance(value, dict):
        return Given({str(key): _placed(child, place) for key, child in value.items()}, place)
    if isinstance(value, list):
        return Given([_placed(child, place) for child in value], place)
    return Given(value, place)


def _items(given: Given) -> list[Given]:
    return given.value if isinstance(given.value, list) else [given]
