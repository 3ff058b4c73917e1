"""`class_names`: what the data module of a run calls its classes."""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl

from touchstone.runs.of_trainer import of_data


def class_names(trainer: pl.Trainer, num_classes: int) -> list[str] | None:
    """The names of the classes by their numbers, at least so many; None where the data module has no `class_names`.

    A class that they do not name is called by its number: a net may have more outputs than the data have classes, and
    names in a dict need not be under numbers.
    """
    names = of_data(trainer, "class_names")
    if names is None:
        return None
    known = names if isinstance(names, Mapping) else dict(enumerate(names))
    return [str(known.get(number, number)) for number in range(max(num_classes, len(known)))]
