"""The one loop that climbs a gain, against its equation in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from touchstone.attacks import L2, Linf
from touchstone.attacks.core.ascend import ascend, cosine_steps

EPS, SIZE, NUM_STEPS = 0.2, 0.07, 6
SLOPE = torch.tensor([3.0, -2.0, 1.0, 0.5, -4.0, 2.0], dtype=torch.float64)
CENTRE = torch.tensor([0.45, 0.55, 0.5, 0.1, 0.6, 0.9], dtype=torch.float64)


def height(points: Tensor) -> Tensor:
    """The sum of slope * (x - centre)^2 of each sample."""
    return (SLOPE * (points - CENTRE).square()).sum(1)


@pytest.fixture
def x() -> Tensor:
    return 0.3 + 0.4 * torch.rand(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("early_stop", [False, True])
def test_momentum_is_its_equation_and_a_goal_that_was_reached_once_ends_a_climb(x: Tensor, early_stop: bool) -> None:
    """Equation 1 of Croce and Hein, whose first step has no move before it; sample 3 is at its goal at one look."""
    start, share, goal_at = x.numpy(), 0.4, 2
    before = here = start
    for step in range(NUM_STEPS):
        uphill = np.sign(SLOPE.numpy() * (here - CENTRE.numpy()))
        moved = np.clip(here + SIZE * uphill, start - EPS, start + EPS)
        if step:
            moved = here + (1 - share) * (moved - here) + share * (here - before)
            moved = np.clip(moved, start - EPS, start + EPS)
        if step >= goal_at:
            moved[3] = here[3]
        before, here = here, moved
    looks = iter(range(NUM_STEPS))

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return height(points), (rows == 3) & (next(looks) == goal_at)

    options = {"num_steps": NUM_STEPS, "momentum": share, "early_stop": early_stop}
    points, reached = ascend(measure, x, start=x, threat=Linf(eps=EPS), step_size=lambda step, threat: SIZE, **options)
    assert np.allclose(points.numpy(), here, atol=1e-12)
    assert reached.tolist() == [number == 3 for number in range(8)]


def test_a_gradient_that_is_no_number_stops_its_own_pixel_alone(x: Tensor) -> None:
    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gain = height(points) + torch.where(rows == 3, torch.nan, 1.0) * points[:, 0]
        return gain, torch.zeros(len(rows), dtype=torch.bool)

    points, _ = ascend(measure, x, start=x, threat=L2(eps=EPS), num_steps=1, step_size=lambda step, threat: SIZE)
    moved = (points - x).abs() > 1e-9
    assert moved.tolist() == [[(row, pixel) != (3, 0) for pixel in range(6)] for row in range(8)]


def test_steps_fall_from_twice_eps_along_half_a_cosine_and_the_last_one_is_a_step() -> None:
    step_size = cosine_steps(4)
    sizes = [float(step_size(step, Linf(eps=0.1))) for step in range(4)]
    assert sizes == pytest.approx([0.2, 0.1 + 0.1 * 0.5**0.5, 0.1, 0.1 - 0.1 * 0.5**0.5])
