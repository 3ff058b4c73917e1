"""Verdicts on curves, as numbers."""

from __future__ import annotations

import pytest

from touchstone.callbacks import Health
from touchstone.callbacks.parts.measures import verdicts

SWINGS = [1.2, 1.4, 1.1, 1.5, 1.2, 1.4, 1.1, 1.5]
FALLING = [2.0, 1.8, 1.7, 1.6, 1.5, 1.4]


def test_a_validation_loss_that_wavers_is_no_overfitting() -> None:
    """The training loss stands still; or the validation loss comes back."""
    val = [0.5, 0.2, 0.121, 0.13, 0.135, 0.138, 0.138, 0.138]
    assert verdicts.overfitting([1.3, 0.7, 0.52, 0.518, 0.516, 0.514, 0.513, 0.513], val) is None
    falling = [1.3, 0.7, 0.52, 0.45, 0.4, 0.36, 0.33, 0.3]
    assert verdicts.overfitting(falling, val) is not None
    assert verdicts.overfitting(falling, [*val[:-1], 0.125]) is None


@pytest.mark.parametrize(
    ("losses", "accuracies", "highest", "went_idle", "is_stuck"),
    [
        ([2.34, 2.33, 2.32], [0.1] * 3, 3.2, None, True),
        ([2.34, 2.33, 2.32], [0.1] * 3, 2.35, "net.2", True),
        ([2.34, 2.33, 2.32], [], 3.2, None, True),  # a module that logs no accuracy
        ([2.34, 2.33, 2.32], [0.1] * 3, 2.35, None, False),  # slow
        ([2.34, 1.9, 1.4], [0.1, 0.3, 0.5], 3.2, "net.2", False),  # it learns
        ([2.34, 2.33, 2.32], [0.9] * 3, 3.2, None, False),  # a trained net has a low loss, and single high ones
    ],
)
def test_a_net_is_stuck_at_chance_where_something_has_happened_to_it(
    losses: list[float], accuracies: list[float], highest: float, went_idle: str | None, is_stuck: bool
) -> None:
    found = verdicts.stuck_at_chance(2.3, highest, losses, accuracies, min_accuracy=0.5, went_idle=went_idle)
    assert bool(found) is is_stuck


@pytest.mark.parametrize(
    ("losses", "too_high"),
    [
        ([50.0, 2.3, 2.3], True),
        ([50.0, 0.5, 0.1], False),  # it has come back
        (SWINGS, True),
        ([2.0, 1.6, 1.3, 1.1, 0.95, 0.85, 0.78, 0.74], False),
        ([1.2, 1.15, 1.12, 1.11, 1.10, 1.10, 1.09, 1.09], False),  # stuck, and calm
        ([0.5, 0.1, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03], False),  # converged: it swings around nothing
    ],
)
def test_a_learning_rate_is_too_high_where_the_loss_explodes_or_swings(losses: list[float], too_high: bool) -> None:
    assert bool(verdicts.learning_rate_too_high(2.3, losses)) is too_high


def test_a_falling_robust_accuracy_is_overfitting_only_while_the_training_loss_falls() -> None:
    robust = [0.3, 0.5, 0.48, 0.45, 0.44, 0.43]
    for losses, is_found in ((FALLING, True), (FALLING[::-1], False), ([0.52, 0.52, 0.518, 0.516, 0.514, 0.51], False)):
        assert bool(verdicts.robust_overfitting(robust, losses, num_samples=10_000)) is is_found
    calm = [0.3, 0.5, 0.49, 0.5, 0.49, 0.5]
    assert verdicts.robust_overfitting(calm, FALLING, num_samples=10_000) is None


@pytest.mark.parametrize(("num_samples", "is_found"), [(10_000, True), (1000, True), (300, False), (0, False)])
def test_a_fall_counts_that_is_larger_than_its_sampling_error(num_samples: int, is_found: bool) -> None:
    """From 22.3 % to 17 %: two standard errors are 6.5 points of 300 samples, and 3.5 of 1000."""
    robust = [0.19, 0.223, 0.20, 0.17, 0.17, 0.17]
    assert bool(verdicts.robust_overfitting(robust, FALLING, num_samples=num_samples)) is is_found


def test_underfitting_is_no_matter_of_attacked_training_images() -> None:
    for train, val, is_found in ((0.4, 0.8, False), (0.3, 0.3, True), (0.45, 0.2, False)):  # the last is overfitting
        assert bool(verdicts.underfitting([train] * 6, [val] * 6, min_accuracy=0.5, has_ended=False)) is is_found


def test_underfitting_waits_while_the_net_still_learns() -> None:
    rising = [0.1, 0.12, 0.14, 0.16, 0.18, 0.2]
    assert verdicts.underfitting(rising, rising, min_accuracy=0.5, has_ended=False) is None
    assert verdicts.underfitting(rising, rising, min_accuracy=0.5, has_ended=True) is not None


def test_an_accuracy_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Health\(min_accuracy=...\) must be in \[0, 1\], got 70"):
        Health(min_accuracy=70)
