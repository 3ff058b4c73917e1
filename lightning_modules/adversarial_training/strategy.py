"""`Strategy`: how a classifier learns from a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from touchstone.attacks import SampleRng

Criterion = Callable[[Tensor, Tensor], Tensor]
"""`criterion(logits, y) -> loss`: the classifier's cross-entropy, a mean over the samples, with its label smoothing."""


@dataclass(frozen=True)
class Learned:
    """What a batch gave.

    Attributes:
        loss: what is minimised, a mean over the samples: `()`.
        logits: of the images that `train/accuracy` is counted on: `(N, C)`.
    """

    loss: Tensor
    logits: Tensor


class Strategy(nn.Module):
    """Ordinary training: the classifier's loss of the images as they are. Another way to learn defines `learn`.

    It becomes a part of the classifier: a buffer that it registers is kept in the checkpoint. The backward pass, the
    optimizer, clipping and accumulation stay Lightning's.
    """

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        """Turns a batch into a loss.

        Args:
            model: images to logits `(N, C)`, in the modes of training.
            x: the images, float `(N, ...)`, N >= 1.
            y: the true classes, int64 `(N,)`.
            criterion: the classifier's own loss.
            rng: noise per sample, other noise in every batch; the global random state belongs to the training.
        """
        logits = model(x)
        return Learned(criterion(logits, y), logits)

    def after_backward(self, model: nn.Module) -> None:
        """Called when the gradients of a batch are in `.grad`, before clipping and the optimizer's step."""
