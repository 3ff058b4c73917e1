"""What the curves of a training say of it, in plain words: one function a fault, each a sentence or None.

Curves have one value per epoch, from the first; accuracies are shares in [0, 1]. Where a function takes several, they
are of the same epochs. The limits are those of an experienced eye, not of a theorem: a verdict says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

Curve = Sequence[float]


def not_finite(num_finite: int, num_steps: int, what: str = "the loss") -> str | None:
    """The loss, or what else is named, was not finite at some step.

    Args:
        num_finite: steps before the first whose loss was not finite, which is its number, counted from 0 as in
            `NotFinite`.
        num_steps: steps so far.
        what: was not finite.
    """
    if num_finite == num_steps:
        return None
    return (
        f"{what} is not finite from step {num_finite} on: lower the learning rate, clip gradients, or look for "
        "a division by 0 or a logarithm of 0"
    )


def learning_rate_too_high(first_loss: float, losses: Curve) -> str | None:
    """The training loss explodes, or falls fast and then swings without converging."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite and max(finite) > 2 * first_loss and finite[-1] > first_loss / 4:
        return (
            f"the learning rate is too high: the training loss rose from {first_loss:.3g} in the first batch to "
            f"{max(finite):.3g} in epoch {losses.index(max(finite)) + 1}"
        )
    if len(losses) < 8 or len(finite) < len(losses):
        return None
    late = losses[len(losses) // 2 :]
    steps = [later - earlier for earlier, later in zip(late, late[1:], strict=False)]
    swings, progress = mean(abs(step) for step in steps), abs(late[-1] - late[0]) / len(steps)
    is_high = mean(late) > first_loss / 4
    if is_high and min(losses) < 0.8 * first_loss and swings > 0.05 * mean(late) and progress < swings / 2:
        return (
            f"the learning rate is too high: the training loss fell fast, and has swung between {min(late):.3g} and "
            f"{max(late):.3g} since epoch {len(losses) - len(late) + 1} without converging"
        )
    return None


def stuck_at_chance(
    first_loss: float,
    highest_loss: float,
    losses: Curve,
    accuracies: Curve,
    *,
    min_accuracy: float,
    went_idle: str | None,
) -> str | None:
    """The first steps were so long that the net has not learned anything since.

    A net that is merely slow stands at the loss of its beginning too, but nothing has happened to it.

    Args:
        first_loss: of the first batch, before any step.
        highest_loss: of any batch so far.
        losses: the mean training loss of each epoch.
        accuracies: of the same ones, on training; empty where they are not known.
        min_accuracy: below which a net may be at chance.
        went_idle: a layer that did something in the first batch, and does nothing now; None for none.
    """
    if len(losses) < 3 or not mean(losses[-3:]) > 0.97 * first_loss:
        return None
    if len(accuracies) and max(accuracies[-3:]) >= min_accuracy:
        return None
    if highest_loss > 1.15 * first_loss:
        what = f"the loss of a batch rose to {highest_loss:.3g}"
    elif went_idle is not None:
        what = f"layer {went_idle!r} stopped working"
    else:
        return None
    return (
        f"the learning rate is too high: {what}, and after {len(losses)} epochs the training loss is still "
        f"{losses[-1]:.3g}, as in the first batch ({first_loss:.3g})"
    )


def overfitting(train_losses: Curve, val_losses: Curve) -> str | None:
    """The validation loss rises for good from some epoch on, by 10 % or more, while the training loss still falls."""
    best = val_losses.index(min(val_losses)) if len(val_losses) else 0
    if len(val_losses) - best < 5:
        return None
    now = mean(val_losses[-3:])
    if min(val_losses[-3:]) < 1.1 * val_losses[best] or not _still_falls(train_losses, best):
        return None
    return (
        f"overfitting from epoch {best + 2} on: the validation loss was lowest in epoch {best + 1}, at "
        f"{val_losses[best]:.3g}, and is {now:.3g} now, while the training loss fell from {train_losses[best]:.3g} to "
        f"{train_losses[-1]:.3g}; keep the best checkpoint, or regularise"
    )


def underfitting(train_accuracies: Curve, val_accuracies: Curve, *, min_accuracy: float, has_ended: bool) -> str | None:
    """Neither training nor validation samples are learned, they do not differ, and it is too late to wait for more.

    Both, since training accuracy may be that of attacked images.

    Args:
        train_accuracies: of each epoch.
        val_accuracies: of the same ones.
        min_accuracy: what one of the two should reach.
        has_ended: whether the training has; until then, it may go on as long as training accuracy rises by a point
            in three epochs.
    """
    if len(train_accuracies) < (3 if has_ended else 6):
        return None
    if not has_ended and mean(train_accuracies[-3:]) > mean(train_accuracies[-6:-3]) + 0.01:
        return None
    train, val = mean(train_accuracies[-3:]), mean(val_accuracies[-3:])
    if max(train, val) >= min_accuracy or train - val > 0.1:
        return None
    return (
        f"underfitting: after {len(train_accuracies)} epochs {train:.1%} of the training and {val:.1%} of the "
        "validation samples are right; train longer, with another learning rate, or a larger net"
    )


def robust_overfitting(robust_accuracies: Curve, train_losses: Curve, *, num_samples: int) -> str | None:
    """In adversarial training, robust accuracy on validation falls for good, while the training loss still falls.

    The fall counts from 3 points on, and from two standard errors of the difference of two shares of so many samples.

    Source: Rice, Wong, Kolter, "Overfitting in adversarially robust deep learning", 2020, section 3.

    Args:
        robust_accuracies: of each epoch.
        train_losses: of the same ones.
        num_samples: behind each robust accuracy; 0 for not known, where no fall can be told from chance.
    """
    best = robust_accuracies.index(max(robust_accuracies)) if len(robust_accuracies) else 0
    if len(robust_accuracies) - best < 4 or not num_samples:
        return None
    before, now = robust_accuracies[best], mean(robust_accuracies[-3:])
    standard_error = math.sqrt((before * (1 - before) + now * (1 - now)) / num_samples)
    if before - max(robust_accuracies[-3:]) < max(0.03, 2 * standard_error) or not _still_falls(train_losses, best):
        return None
    return (
        f"robust overfitting from epoch {best + 2} on: robust accuracy on validation was {before:.1%} in epoch "
        f"{best + 1} and is {now:.1%} now, while the training loss still falls; keep the best checkpoint"
    )


def _still_falls(train_losses: Curve, since: int) -> bool:
    """Whether the training loss is lower, by 5 % or more, than in an epoch before."""
    return mean(train_losses[-3:]) < 0.95 * train_losses[since]


def idle_layer(layer: str, kind: str, share: float) -> str | None:
    """A layer of activations is dead or saturated.

    Args:
        layer: its name.
        kind: `"dead"` or `"saturated"`.
        share: of its units that are 0 for every sample, or of its values within 1 % of their bounds.
    """
    if share < 0.9:
        return None
    what = "of its units are 0 for every sample" if kind == "dead" else "of its values are at their bounds"
    return f"layer {layer!r} is {kind}: {share:.0%} {what}, so that hardly any gradient passes it"
