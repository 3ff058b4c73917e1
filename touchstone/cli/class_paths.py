"""`find`: the object that a class path names, or why there is none and which name is the nearest.

`several`: what jsonargparse says of a name that several classes share, in words of this project.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path
from typing import Any

from .mistakes import nearest

# Where a class path without a dot is looked for.
SHORT_NAMES = (
    "touchstone.attacks",
    "touchstone.callbacks",
    "touchstone.datamodules",
    "touchstone.lightning_modules",
    "touchstone.nets",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "torch.optim",
    "torch.optim.lr_scheduler",
)


def find(path: str) -> Any:
    """The object that a class path names.

    Raises:
        LookupError: there is none; the message says which part of the path is wrong, and the nearest valid name.
    """
    if "." not in path:
        return _find_short(path)
    found: Any = None
    parts = path.split(".")
    for position, part in enumerate(parts):
        so_far = ".".join(parts[: position + 1])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(so_far)
        except ModuleNotFoundError as error:
            if error.name is None or not so_far.startswith(error.name):  # the module exists, and imports another
                raise LookupError(f"{so_far} cannot be imported: {error}") from error
            raise LookupError(_missing(found, part, path)) from error
        except Exception as error:
            raise LookupError(f"{so_far} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def several(name: str, said: str) -> str | None:
    """What is to be done about a short name, where an error of jsonargparse says that several classes have it."""
    found = re.search(r"to avoid ambiguity: (.*?)\.?$", said, re.MULTILINE)
    return f"several classes are called {name}, give the path of one: {found[1]}" if found else None


def _find_short(name: str) -> Any:
    names: set[str] = set()
    for module in map(importlib.import_module, SHORT_NAMES):
        if name in _names(module):
            return getattr(module, name)
        names |= _names(module)
    own = f"; a class of your own is named with its module, MODULE.{name}"
    raise LookupError(f"there is no class {name!r}{nearest(name, names) or own}")


def _missing(owner: Any, part: str, path: str) -> str:
    if owner is not None:
        return f"{owner.__name__} has no {part!r}{nearest(part, _names(owner))}"
    try:
        find(f"touchstone.{path}")
    except LookupError:
        folders = {file.parent.name for file in Path.cwd().glob("*/*.py") if file.parent.name.isidentifier()}
        inside = [folder for folder in sorted(folders) if os.path.isfile(Path(folder, f"{part}.py"))]
        if inside:
            return f"there is no module {part!r}; did you mean {f'{inside[0]}.{path}'!r}?"
        here = folders | {module.name for module in pkgutil.iter_modules([os.getcwd()])}
        return f"there is no module {part!r}{nearest(part, here | {'touchstone', 'lightning', 'torch', 'torchvision'})}"
    return f"there is no module {part!r}; did you mean {'touchstone.' + path!r}?"


def _names(owner: Any) -> set[str]:
    """The names that a class path may go on with."""
    names = set(getattr(owner, "__all__", None) or (name for name in vars(owner) if not name.startswith("_")))
    if inspect.ismodule(owner) and hasattr(owner, "__path__"):
        names |= {module.name for module in pkgutil.iter_modules(owner.__path__)}
    return names
