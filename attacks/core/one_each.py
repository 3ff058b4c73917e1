"""`check_one_each`: methods that must give one value for each sample, and say so where they give something else.

A mean over the batch would compare a sample with what the others were tried with, and be broadcast without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

from torch import Tensor


def check_one_each(owner: type, **kinds: Literal["float", "bool"]) -> None:
    """Has the methods that a class defines itself raise ValueError where they give no tensor `(N,)` of their kind.

    Where every loss and every objective is made, since an attack may call them as it likes.

    Args:
        owner: the class.
        kinds: by name, what a method `(self, logits, ...)` gives for each of the N samples.
    """
    for name, kind in kinds.items():
        if name in vars(owner):
            called = f"{owner.__name__}()" if name == "__call__" else f"{owner.__name__}.{name}"
            setattr(owner, name, _checked(vars(owner)[name], called, kind))


def _checked(method: Any, called: str, kind: Literal["float", "bool"]) -> Callable[..., Any]:
    @wraps(method)
    def checked(self: object, *args: Any, **kwargs: Any) -> Any:
        values = method.__get__(self, type(self))(*args, **kwargs)  # it may be static, or of the class
        like = next(iter((*args, *kwargs.values())))  # each has a row per sample
        got, hint = f"a {type(values).__name__}", ""
        if isinstance(values, Tensor):
            own_kind = "float" if values.is_floating_point() else str(values.dtype).removeprefix("torch.")
            if own_kind == kind and values.shape == like.shape[:1]:
                return values
            got = f"{own_kind} {tuple(values.shape)}"
            if kind == own_kind == "float" and not values.ndim:
                hint = "; for torch's losses use reduction='none'"
        raise ValueError(f"{called} must give one value per sample, {kind} ({len(like)},), got {got}{hint}")

    return checked
