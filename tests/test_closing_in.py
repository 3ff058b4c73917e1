"""The corner of an L1 ball and box, against linear programming, and climbs in a ball that closes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from touchstone.attacks import L1, PGD, Strongest, evaluate
from touchstone.attacks.cascade import closing_in
from touchstone.attacks.cascade.closing_in import Step, along_gradient, climb_closing_in, to_corner
from touchstone.attacks.core.ascend import Measure

from .oracles import images

NUM_PIXELS = 12


def farthest(grad: np.ndarray, x: np.ndarray, eps: float, box: tuple[float, float] | None) -> float:
    """The largest product of a gradient and a change inside ball and box: a linear program."""
    low, high = box or (-np.inf, np.inf)
    bounds = [(0, high - v) for v in x] + [(0, v - low) for v in x]  # upwards and downwards
    solved = linprog(-np.concatenate([grad, -grad]), A_ub=np.ones((1, 2 * len(x))), b_ub=[eps], bounds=bounds)
    assert solved.success
    return -solved.fun


@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 8), boxed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_corner_is_the_solution_of_a_linear_program(seed: int, eps: float, boxed: bool) -> None:
    rng = np.random.default_rng(seed)
    grad = rng.normal(size=NUM_PIXELS) * (rng.random(NUM_PIXELS) < 0.8)
    x = rng.random(NUM_PIXELS).round(1)  # some at the edge of the box
    threat = L1(eps=eps, box=(0.0, 1.0) if boxed else None)
    corner = threat.corner(torch.from_numpy(grad)[None], torch.from_numpy(x)[None])[0].numpy()
    assert np.abs(corner - x).sum() <= eps + 1e-9
    assert not boxed or 0 <= corner.min() <= corner.max() <= 1
    assert grad @ (corner - x) == pytest.approx(farthest(grad, x, eps, threat.box), abs=1e-7)


def test_a_corner_has_the_eps_and_the_mask_of_its_sample() -> None:
    x, grad = torch.full((3, 1, 2, 3), 0.5), torch.tensor([[5.0, -4, 3], [2, -1, 0]]).expand(3, 1, 2, 3)
    mask = torch.tensor([[False, True, True], [True, True, True]])[None, None]
    change = L1(eps=torch.tensor([0.3, 0.8, 9.0]), mask=mask).corner(grad, x) - x
    expected = [[0, -0.3, 0, 0, 0, 0], [0, -0.5, 0.3, 0, 0, 0], [0, -0.5, 0.5, 0.5, -0.5, 0]]
    assert torch.allclose(change.flatten(1), torch.tensor(expected))


def linear(weight: Tensor, x: Tensor, threshold: float) -> tuple[list[int], Measure]:
    """A gain whose goal is a height, and how many points it was asked about."""
    asked: list[int] = []

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(len(rows))
        gain = ((points - x[rows]) * weight).flatten(1).sum(1)
        return gain, gain.detach() >= threshold

    return asked, measure


@pytest.mark.parametrize("factor", [1.0, 20.0])
@pytest.mark.parametrize(
    ("step", "pixels_per_eps", "within"),
    [(to_corner(1.0), 3, 0.005), (along_gradient, None, 0.01)],
    ids=["to corners", "along the gradient"],
)
def test_of_a_linear_gain_the_highest_point_is_found(
    step: Step, pixels_per_eps: int | None, within: float, factor: float
) -> None:
    x, weight = images(6), torch.randn(1, 6, 6)
    threat = L1(eps=2.5, pixels_per_eps=pixels_per_eps)
    asked, measure = linear(weight, x, torch.inf)
    start = L1(eps=factor * 2.5).project(x + torch.randn_like(x), x)
    points = climb_closing_in(measure, x, start=start, threat=threat, factor=factor, step=step, num_steps=60)
    expected = [farthest(weight.flatten().numpy(), row.flatten().numpy(), 2.5, (0, 1)) for row in x]
    gain = ((points - x) * weight).flatten(1).sum(1)
    assert gain.tolist() == pytest.approx(expected, rel=within)
    assert threat.contains(points, x).all()
    assert asked == [6] * 60


def test_who_has_reached_the_goal_inside_the_threat_leaves() -> None:
    x, weight = images(6), torch.ones(1, 6, 6)
    asked, measure = linear(weight, x, 0.5)
    points = climb_closing_in(measure, x, start=x, threat=L1(eps=2), factor=1.0, step=to_corner(1.0), num_steps=9)
    assert asked == [6, 6]  # at the sample itself, and after one step
    assert (((points - x) * weight).flatten(1).sum(1) >= 0.5).all()


@pytest.mark.parametrize("step", [to_corner(1.0), along_gradient])
def test_the_first_balls_are_larger_and_the_last_ones_are_the_threat(step: Step) -> None:
    """And who reaches the goal outside the threat alone goes on."""
    x, weight, lengths = images(6), torch.randn(1, 6, 6), []
    threat, larger = L1(eps=0.5), L1(eps=10)

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        lengths.append((points.detach() - x[rows]).abs().flatten(1).sum(1))
        return ((points - x[rows]) * weight).flatten(1).sum(1), lengths[-1] > 0.6

    start = larger.project(x + torch.randn_like(x), x)
    points = climb_closing_in(measure, x, start=start, threat=threat, factor=20, step=step, num_steps=20)
    assert [len(length) for length in lengths] == [6] * 20
    most = [float(length.max()) for length in lengths]
    assert most[1] > 5  # one of ten times eps, or nearly
    assert all(0.5 < most[number] <= 10 * 20 ** (-number / 14) + 1e-4 for number in range(2, 13))
    assert max(most[14:]) <= 0.5 + 1e-5
    assert threat.contains(points, x).all()


def test_who_has_fallen_stays_there_until_it_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a model that draws random numbers says otherwise later."""
    monkeypatch.setattr(closing_in, "leave_every", lambda device: 5)
    x, seen = images(3), []

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(points.detach().clone())
        return points.flatten(1).sum(1), torch.full((len(rows),), len(seen) == 3)

    points = climb_closing_in(measure, x, start=x, threat=L1(eps=2), factor=1, step=to_corner(0.5), num_steps=9)
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(points, seen[2])
    assert [len(given) for given in seen] == [3] * 6


class Asleep(torch.nn.Module):
    """Sees a pixel only where it has moved by more than 0.7, so that no small change has a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.relu((x - 0.1).abs() - 0.7).flatten(1).sum(1, keepdim=True)
        return torch.cat([torch.full_like(seen, 0.3), seen], 1)


def test_units_that_sleep_inside_small_changes_are_woken() -> None:
    x, y = torch.full((8, 1, 6, 6), 0.1), torch.zeros(8, dtype=torch.int64)
    threat = L1(eps=3)  # three pixels by 0.9 are seen as 0.6
    report = evaluate(Asleep(), x, y, {"pgd": PGD(threat=threat, num_steps=40), "strongest": Strongest(threat=threat)})
    assert report.robust["pgd"].all()
    assert not report.robust["strongest"].any()
