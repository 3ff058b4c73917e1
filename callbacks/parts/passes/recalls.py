"""`recalls`: the share of the samples of each class that are right."""

from __future__ import annotations

from collections import Counter

import lightning.pytorch as pl
from torch import Tensor
from torchmetrics.functional.classification import multiclass_recall

from touchstone.attacks import Report

from ..names.class_names import class_names


def recalls(trainer: pl.Trainer, right: Tensor, label: Tensor) -> dict[str, float]:
    """The recall of each class that has samples, by its name in the data module, else by its number.

    A name that several classes have stands with the number of the class behind it, `crane (2)`.

    Args:
        trainer: whose data module may know `class_names`.
        right: whether a sample is right, bool `(N,)`, N >= 1.
        label: its class, int64 `(N,)`.
    """
    num_classes = int(label.max()) + 1
    predicted = label.where(right, num_classes)  # a class that no label has
    shares = multiclass_recall(predicted, label, num_classes=num_classes + 1, average=None)
    names = class_names(trainer, num_classes) or list(map(str, range(num_classes)))
    num_called = Counter(names)
    called = {n: f"{names[n]} ({n})" if num_called[names[n]] > 1 else names[n] for n in range(num_classes)}
    return {called[number]: float(shares[number]) for number in label.unique().tolist()}


def recalls_after_attacks(trainer: pl.Trainer, report: Report) -> dict[str, float]:
    """The recall of each class after each attack, and after all of them, by names such as `robust_recall/pgd/cat`."""
    verdicts = {"worst_case": report.worst_case, **report.robust}
    return {
        f"robust_recall/{attack}/{name}": share
        for attack, right in verdicts.items()
        for name, share in recalls(trainer, right, report.label).items()
    }
