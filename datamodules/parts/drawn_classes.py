"""`shuffled`: training samples in random order, or drawn by their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.utils.data import WeightedRandomSampler

from .whole_batches import Rows


def shuffled(
    rows: Rows, class_shares: Sequence[float] | Literal["equal"] | None, class_names: Sequence[str] | None
) -> dict[str, Any]:
    """The options of a data loader for a new order in every epoch, drawn from torch's random state.

    Args:
        rows: the training samples.
        class_shares: how often each class is drawn, in proportion, with replacement, one number >= 0 a class;
            `"equal"` for all equally often; None for every sample once.
        class_names: of the data, as many as there are classes.

    Raises:
        ValueError: there are more or fewer shares than classes, a share is out of range, or of a class without images.
    """
    if class_shares is None:
        return {"shuffle": True}
    assert class_names is not None
    num_classes, labels = len(class_names), rows.y[rows.rows]
    counts = labels.bincount(minlength=num_classes)
    shares = (counts > 0).double() if class_shares == "equal" else torch.tensor(class_shares, dtype=torch.float64)
    if len(shares) != num_classes:
        raise ValueError(
            f"ImagesDataModule(class_shares=...) must be one for each of the {num_classes} classes, got {len(shares)}"
        )
    if not bool((shares >= 0).all() & shares.isfinite().all() & (shares > 0).any()):
        raise ValueError(
            f"ImagesDataModule(class_shares=...) must be numbers >= 0, and one of them above, got {shares.tolist()}"
        )
    missing = ((shares > 0) & (counts == 0)).nonzero()
    if len(missing):
        raise ValueError(f"ImagesDataModule(class_shares=...): {class_names[int(missing[0])]!r} has no training images")
    weights = (shares / counts.clamp_min(1))[labels]
    return {"sampler": WeightedRandomSampler(weights.tolist(), len(labels))}
