"""What `--help` says of classes: those that one may choose among, and nothing of what a library is made of.

jsonargparse lists every class that is loaded below a type, of `torch.nn.Module` some 800. Neither it nor argparse has a
public place to choose among them: `_expand_help`, the last word on an option's text, is where argparse's own formatters
do such things, and `extra_help` is where jsonargparse lists classes.
"""

from __future__ import annotations

import difflib
import inspect
import re
import shutil
import sys
from argparse import Action
from collections.abc import Iterator, Sequence
from textwrap import fill, indent
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from .class_paths import find, several
from .mistakes import UsageError

KNOWN = ", known subclasses: "
COUNTLESS = {"torch.nn.Module", "torch.Tensor"}
OF_OTHER_KIND = "touchstone.lightning_modules."  # of all modules: these go where they have an option of their own
NOT_FOR = {"model.": "touchstone.datamodules.", "data.": "touchstone.nets."}
TO_INHERIT = {
    "lightning.Callback",
    "lightning.LightningDataModule",
    "lightning.LightningModule",
    "torch.optim.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "touchstone.attacks.Attack",
    "touchstone.attacks.Objective",
    "touchstone.attacks.Threat",
    "touchstone.callbacks.Probe",
    "touchstone.lightning_modules.InnerAttack",
}
MOST_NAMES = 12


class Parser(LightningArgumentParser):
    """LightningArgumentParser whose help of a class ends with the classes below it."""

    def __init__(self, *args: Any, formatter_class: Any = None, **kwargs: Any) -> None:
        kwargs.setdefault("exit_on_error", False)  # inside the help of another class it is made without arguments
        super().__init__(*args, formatter_class=formatter_class or _Formatter, **kwargs)
        self._of_class: Any = None

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Adds the options of a class, of which `format_help` tells."""
        self._of_class = theclass
        return super().add_class_arguments(theclass, *args, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help; where it is of a class alone, with the names of those below it."""
        text = super().format_help(*args, **kwargs)
        if not (self.description or "").startswith("Help for ") or not inspect.isclass(self._of_class):
            return text
        below = [name for name in _known_below(self._of_class) if _last(name) != self._of_class.__name__]
        listed = fill(", ".join(below), shutil.get_terminal_size().columns - 2, break_on_hyphens=False)
        return f"{text}\nBelow {self._of_class.__name__}:\n{indent(listed, '  ')}\n" if below else text


class _Formatter(DefaultHelpFormatter):
    def _expand_help(self, action: Action) -> str:
        text = re.sub(r"<class '([\w.]+)'>", r"\1", super()._expand_help(action))
        before, found, names = text.rpartition(KNOWN)
        if not found:
            return text
        listed = names.removesuffix(")").split(", ")
        chosen = ", ".join(_choice(listed, action.dest))
        if not COUNTLESS & set(listed):
            return f"{before}{KNOWN}{chosen})"
        return f"{before}, of touchstone: {chosen}; any other by its class path)" if chosen else f"{before})"


def explain_class_help(parser: ArgumentParser, arguments: Sequence[str], error: Exception) -> UsageError | None:
    """What is wrong with the class that a `--KEY.help` names, the right names nearest first; None if it is not that."""
    if unknown := re.search(r"nrecognized arguments: --(\S+\.help)(?=[\s=]|$)", str(error)):
        option = next((asked for asked, _ in _asked(arguments) if asked.endswith(unknown[1])), f"--{unknown[1]}")
        return UsageError(
            f"there is no option {option}: only what is a class has help of its own, and one inside another class "
            "stands behind it, as in --model.help Classifier --model.net.help SmallCNN"
        )
    said = re.search(r"(--\S+\.help): (.*)", str(error))
    if said is None:
        return None
    option, reason = said.groups()
    for asked, name in _asked(arguments):
        action = next((a for a in parser._actions if f"--{a.dest}.help" == asked), None)
        names = [] if action is None else _known(action)
        path = next((path for path in names if _last(path) == name), name)
        if asked == option:
            if ambiguous := several(name, reason):
                return UsageError(f"{option}: {ambiguous}")
            reason = reason if "is not a" in reason else _why_not(name)
            return UsageError(f"{option}: {reason}{_nearest_first(name, names)}")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(find(path), asked[2 : -len(".help")], fail_untyped=False)
    return None


def _asked(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options that end with `.help`, and the classes that they name."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, name = argument.partition("=")
        if option.startswith("--") and option.endswith(".help"):
            yield option, name if equals else after


def _why_not(name: str) -> str:
    if not name:
        return "a class is needed"
    if "." in name:
        try:
            find(name)
        except LookupError as error:
            return str(error).partition(";")[0]
    return f"{name!r} is no class for it"


def _nearest_first(name: str, paths: Sequence[str]) -> str:
    """`"; there is ..."` with the names of classes; of no name all, and first those of this project."""
    if not name:
        return f"; there is {', '.join(map(_last, sorted(paths, key=lambda p: not p.startswith('touchstone.'))))}"
    wanted = _last(name).lower()
    near = sorted(map(_last, paths), key=lambda one: -difflib.SequenceMatcher(None, wanted, one.lower()).ratio())
    more = ", ..." if len(near) > MOST_NAMES else ""
    return f"; there is {', '.join(near[:MOST_NAMES])}{more}" if near else ""


def _known_below(one: type) -> list[str]:
    parser = ArgumentParser(exit_on_error=False)
    return _known(parser.add_argument("--it", type=one))


def _known(action: Any) -> list[str]:
    """The class paths to choose among for an option."""
    return _choice(filter(None, action.extra_help().removeprefix(KNOWN).split(", ")), action.dest)


def _choice(paths: Any, option: str) -> list[str]:
    """Those of touchstone that a package offers; and of libraries all, unless they are countless.

    Of all modules, an option of a model is offered no augmentations, and one of data no nets.
    """
    paths = list(paths)
    ours = [path for path in paths if path.startswith("touchstone.")]
    offered = {path for path in ours if hasattr(sys.modules.get(path.rpartition(".")[0]), "__path__")}
    if COUNTLESS & set(paths):
        others = (OF_OTHER_KIND, *(where for key, where in NOT_FOR.items() if option.startswith(key)))
        return [path for path in paths if path in offered and not path.startswith(others)]
    return [path for path in paths if path not in TO_INHERIT and (path in offered or path not in ours)]


def _last(path: str) -> str:
    return path.rpartition(".")[2]
