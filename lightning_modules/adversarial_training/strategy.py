"""`Strategy`: how a classifier learns from a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import SampleRng


def _plain_mean(each: Tensor, y: Tensor) -> Tensor:
    """The mean of one number a sample, float `(N,)`, whatever the labels: `()`."""
    return each.mean()


@dataclass(frozen=True)
class Criterion:
    """The classifier's own loss of a batch: `criterion(logits, y)`, a mean over the samples, with its label smoothing.

    Attributes:
        cross_entropy: the loss, `()`, from logits `(N, C)` and labels `y`; torch's unless it is given.
        mean: `mean(each, y)`, `()`: a mean as that of the loss, each sample counted by the weight of its class, for a
            strategy with a loss of its own, float `(N,)`.
    """

    cross_entropy: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    mean: Callable[[Tensor, Tensor], Tensor] = _plain_mean

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.cross_entropy(logits, y)


@dataclass(frozen=True)
class Learned:
    """What a batch gave.

    Attributes:
        loss: what is minimised, a mean over the samples: `()`.
        logits: of the images that `train/accuracy` is counted on: `(N, C)`.
        again: learns from the very same images with the weights as they are when it is called; None where that cannot
            be. For strategies around others that move the weights (`AWP`).
    """

    loss: Tensor
    logits: Tensor
    again: Callable[[], Learned | None] | None = None


class Strategy(nn.Module):
    """Ordinary training: the classifier's loss of the images as they are. Another way to learn defines `learn`.

    It becomes a part of the classifier: a buffer that it registers, and the memory of a `Remembering` one, are kept in
    the checkpoint. The backward pass, the optimizer, clipping and accumulation stay Lightning's.
    """

    num_repeats: int = 1
    """How often each batch of the training data comes, one time after the other."""

    learns_from_attacks: bool = False
    """Whether the images that it learns from are attacked, all or some: callbacks ask, that cannot see it."""

    def samples(self, x: Tensor, y: Tensor, repeat: int) -> tuple[Tensor, Tensor]:
        """What to learn from, given a batch and how often it has come already in a row, 0 to `num_repeats` - 1."""
        return x, y

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned | None:
        """Turns a batch into a loss; None leaves the batch out.

        Args:
            model: images to logits `(N, C)`, in the modes of training.
            x: the images, float `(N, ...)`, N >= 1.
            y: the true classes, int64 `(N,)`; or shares of them, float `(N, C)`, for a strategy that takes these.
            criterion: the classifier's own loss.
            rng: noise per sample, other noise in every batch; the global random state belongs to the training.
        """

        def take() -> Learned:
            logits = model(x)
            return Learned(criterion(logits, y), logits, again=take)

        return take()

    def after_backward(self, model: nn.Module) -> None:
        """Called when the gradients of a batch are in `.grad`, before clipping and the optimizer's step."""

    def restore_weights(self) -> None:
        """Gives the weights back that it has moved for the backward pass.

        Called where a pass is about to be recomputed that was made before they moved, and after a batch, which may have
        had no backward pass.
        """

    def scale_eps(self, share: float) -> None:
        """Learns within a share of eps from the next batch on, in (0, 1]; for `EpsWarmup`.

        Raises:
            ValueError: this strategy has no eps.
        """
        raise ValueError(f"{type(self).__name__} has no eps that could grow")

    def fall_back(self) -> bool:
        """Learns from another attack from the next batch on; called where the present one is seen to be overfitted.

        Returns:
            Whether it does: not where it has none, nor where it has fallen back already.
        """
        return False
