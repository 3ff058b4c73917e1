"""What goes wrong in a measurement says whose it is, and where the model cannot be called as it is there, just that."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from touchstone.attacks.core.logits import logits_of
from touchstone.attacks.core.out_of_memory import is_out_of_memory

from .before_training import check_forward
from .samples import Samples


@contextmanager
def named(asked_by: str) -> Iterator[None]:
    """Every ValueError inside begins with the class that measures: a trainer has several callbacks."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            _add_note(error, f"(in {asked_by})")
        elif not str(error.args[0] if error.args else "").startswith(asked_by):
            add_words(error, before=f"{asked_by}: ")
        raise


def add_words(error: ValueError, *, before: str = "", after: str = "") -> None:
    """Puts words around a message; of a class of somebody's own, whose arguments may be anything, into a note."""
    if type(error) is ValueError:
        message, *rest = error.args or ("",)
        error.args = (f"{before}{message}{after}", *rest)
    else:
        _add_note(error, f"({(before + after).strip(':; ')})")


def _add_note(error: ValueError, note: str) -> None:
    notes = vars(error).setdefault("__notes__", [])  # `add_note` is of Python 3.11
    if note not in notes:
        notes.append(note)


@contextmanager
def explained(asked_by: str, module: nn.Module, model: nn.Module, samples: Samples) -> Iterator[None]:
    """Whatever goes wrong inside since the model cannot be called with the samples alone says so, as a ValueError.

    What is a ValueError of a class of its own stays that.

    Args:
        asked_by: who calls it, for messages.
        module: the user's own.
        model: the same, as it is called.
        samples: those that it is called with.
    """
    try:
        yield
    except Exception as error:
        found = None if is_out_of_memory(error) else _of_forward(error, model, samples.x)
        if found is None or isinstance(error, ValueError) and type(error) is not ValueError:
            raise
        of_forward, x = found
        check_forward(module, asked_by)
        told = ValueError(
            f"{asked_by}: the model cannot be called with the samples alone, {x.dtype} {tuple(x.shape)}: "
            f"{type(of_forward).__name__}: {of_forward}"
        )
        vars(told)["__notes__"] = list(getattr(of_forward, "__notes__", []))
        raise told from error


def _of_forward(error: BaseException, model: nn.Module, samples: Tensor) -> tuple[BaseException, Tensor] | None:
    """The error that the model's forward ended in when it was called with such samples alone, and these; else None."""
    found, cause = None, error.__cause__
    for frame, _ in traceback.walk_tb(error.__traceback__):
        inside = frame.f_locals
        if frame.f_code.co_name == "_call_impl" and inside.get("self") is model:  # of every `nn.Module`
            found = _alone(inside.get("args", ()), inside.get("kwargs", {}), samples)
        elif frame.f_code is logits_of.__code__:  # it gave something, which is none
            found = None
    if found is not None:
        return error, found
    return None if cause is None else _of_forward(cause, model, samples)


def _alone(args: tuple[object, ...], kwargs: dict[str, object], samples: Tensor) -> Tensor | None:
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].shape[1:] == samples.shape[1:]:
        return args[0]
    return None
