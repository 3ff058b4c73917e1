"""`callbacks_of` and `of_data`: what a trainer has and Lightning's types do not tell."""

from __future__ import annotations

from typing import Any, TypeVar

import lightning.pytorch as pl

Kind = TypeVar("Kind")


def callbacks_of(trainer: pl.Trainer, kind: type[Kind]) -> list[Kind]:
    """The callbacks of a kind, in the order in which Lightning asks them."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def of_data(trainer: pl.Trainer | None, name: str, default: Any = None) -> Any:
    """What the data module of a trainer has under a name; `default` where it has no such thing, or there is none."""
    return getattr(getattr(trainer, "datamodule", None), name, default)
