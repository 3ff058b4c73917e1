"""`check_learned`: what a strategy of one's own must return."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..strategy import Learned, Strategy


def check_learned(strategy: Strategy, learned: Any, num_samples: int) -> None:
    """Raises ValueError where this is not what a batch gives: a loss, `()`, and logits `(N, classes)`.

    None leaves the batch out, as Lightning knows it; a loss `(1,)` has one number too.
    """
    if learned is None:
        return
    learn = f"{type(strategy).__name__}.learn"
    if not isinstance(learned, Learned):
        raise ValueError(f"{learn} must return Learned(loss, logits), got a {type(learned).__name__}")
    for name, value in (("loss", learned.loss), ("logits", learned.logits)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{learn} must return a tensor as {name}, got a {type(value).__name__}")
    if learned.loss.numel() != 1:
        raise ValueError(
            f"{learn} must return a loss of shape (), the mean over the samples, got {tuple(learned.loss.shape)}"
        )
    if learned.logits.ndim != 2 or len(learned.logits) != num_samples:
        raise ValueError(
            f"{learn} must return logits of shape ({num_samples}, classes), one row for each image of the batch, "
            f"got {tuple(learned.logits.shape)}"
        )
