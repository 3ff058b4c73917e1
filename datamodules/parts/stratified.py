"""`stratified`: rows divided in two with the same share of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stratified(y: Tensor, share: float, seed: int, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The rows that are left, and those taken: of every class this share, rounded, at least one and not all.

    Args:
        y: classes, int64 `(N,)`.
        share: in (0, 1).
        seed: the same one takes the same rows.
        class_names: for the message.

    Returns:
        rows, int64, in ascending order.

    Raises:
        ValueError: a class has one image alone, or had two of which one is taken already.
    """
    rng = np.random.default_rng(seed)
    taken = []
    for label in torch.unique(y).tolist():
        rows = np.flatnonzero(y.numpy() == label)
        if len(rows) < 2:
            raise ValueError(
                f"the class {class_names[label]!r} has too few images for every split to have one: add images, or give "
                "validation and test images of their own"
            )
        num_taken = min(max(1, round(share * len(rows))), len(rows) - 1)
        taken.append(rng.choice(rows, num_taken, replace=False))
    is_taken = np.zeros(len(y), bool)
    is_taken[np.concatenate(taken)] = True
    return torch.from_numpy(np.flatnonzero(~is_taken)), torch.from_numpy(np.flatnonzero(is_taken))
