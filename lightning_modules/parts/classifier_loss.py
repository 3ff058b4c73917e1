"""`ClassifierLoss`: the loss of a classifier, which says in words where a batch does not fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks.core.checks import check_batch, check_labels
from touchstone.options import check_between


class ClassifierLoss(nn.Module):
    """The mean cross-entropy of logits, as torch's; with weights, over the sum of those of the labels.

    Of labels that are shares of classes torch would divide by their number, whatever the weights: then the same labels,
    one-hot, would cost another loss. A batch whose labels have no weight has the loss 0, where torch has 0 / 0.

    Args:
        label_smoothing: share of the target spread over all classes, in [0, 1).
        class_weights: how much a sample of each class counts, one number >= 0 a class; no part of a checkpoint.

    Raises:
        ValueError: a value is outside its range; or, when called, there are more or fewer weights than classes, or
            images and labels do not fit.
    """

    class_weights: Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        check_between("Classifier(label_smoothing=...)", label_smoothing, 0, 1, "[)")
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        if weights is not None and not (len(weights) and bool((weights >= 0).all() & weights.isfinite().all())):
            raise ValueError(f"Classifier(class_weights=...) must be numbers >= 0, got {list(class_weights or [])}")
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, y: Tensor, *, x: Tensor) -> Tensor:
        """The loss, `()`.

        Args:
            logits: float `(N, classes)`.
            y: classes, int64 `(N,)`, or shares of them, float `(N, classes)`.
            x: the images that the logits are of, for the message where something is wrong with them.
        """
        self.check_classes(logits)
        try:
            if self.class_weights is None:
                return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
            # A copy, since what recomputes a pass puts buffers back in place, and the backward pass needs them as here.
            weights = self.class_weights.clone()
            each = F.cross_entropy(logits, y, weights, label_smoothing=self.label_smoothing, reduction="none")
            return each.sum() / _or_infinite(_weights_of(y, weights).sum())
        except (IndexError, RuntimeError):
            if logits.ndim < 2 or y.ndim == 1 and logits.ndim != 2:
                raise ValueError(
                    f"the model must return logits of shape ({len(x)}, classes), got {tuple(logits.shape)}"
                ) from None
            if y.is_floating_point() and y.ndim == 2 and y.shape[1] != logits.shape[1]:
                raise ValueError(
                    f"labels that are shares of classes must be `(N, {logits.shape[1]})`, one for each class of the "
                    f"model, got the shape {tuple(y.shape)}: MixUp and CutMix take num_classes={logits.shape[1]}"
                ) from None
            check_batch(x, y)  # says in words what is wrong, where it is the batch
            check_labels(y, logits.shape[1])
            raise

    def mean(self, each: Tensor, y: Tensor) -> Tensor:
        """The mean of another loss, weighted as this one: `()`."""
        if self.class_weights is None:
            return each.mean()
        counts = _weights_of(y, self.class_weights)
        return (counts * each).sum() / _or_infinite(counts.sum())

    def check_classes(self, logits: Tensor) -> None:
        """Raises ValueError where there are more or fewer weights than classes, the columns of logits `(N, C)`."""
        if self.class_weights is not None and logits.ndim > 1 and len(self.class_weights) != logits.shape[1]:
            raise ValueError(
                f"Classifier(class_weights=...) must be one for each of the {logits.shape[1]} classes, "
                f"got {len(self.class_weights)}"
            )


def _weights_of(y: Tensor, class_weights: Tensor) -> Tensor:
    """How much each sample counts, `(N,)`: the weight of its class, or the mean weight of its shares of classes."""
    return (y * class_weights).sum(1) if y.is_floating_point() else class_weights.index_select(0, y)


def _or_infinite(total: Tensor) -> Tensor:
    """The sum of a batch's weights; infinite in place of 0, so that what is divided by it is 0, or NaN as it was."""
    return total.where(total > 0, torch.inf)
