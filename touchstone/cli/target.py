"""`--target`: the class that the callbacks of a config aim at, by one short option."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from touchstone.callbacks.parts.names.class_by_name import class_by_name

from .mistakes import UsageError


def aim_callbacks(config: Namespace) -> None:
    """Gives the value of `target` to every callback that has one, as `--trainer.callbacks.target` to the last.

    Raises:
        UsageError: no callback has a target.
    """
    target = config.get("target")
    if target is None:
        return
    callbacks: Any = config.get("trainer.callbacks") or []
    given = [callback.get("init_args") for callback in (callbacks if isinstance(callbacks, list) else [callbacks])]
    aiming = [arguments for arguments in given if arguments is not None and "target" in arguments]
    if not aiming:
        raise UsageError("--target is for a config with a callback that has one, such as configs/tarantula.yaml")
    for arguments in aiming:
        arguments["target"] = target


def check_target(target: int | str | None, data: object) -> None:
    """Raises UsageError where the data know their classes, and `target` is none of them or fits several."""
    names = getattr(data, "class_names", None)
    if target is None or names is None:
        return
    try:
        class_by_name(str(target), names, "--target")  # on a command line, a number may be meant as a name
    except ValueError as error:
        raise UsageError(str(error)) from None
