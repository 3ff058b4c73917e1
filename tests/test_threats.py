"""Threats: projections against independent solvers, and steps that are worth their length."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from torch import Tensor, nn

from touchstone.attacks import FGSM, L0, L1, L2, PGD, EmbeddingBall, Linf, SampleRng, evaluate
from touchstone.attacks.threats.ball import Ball

from .oracles import images, own_labels, small_net

FLOATS = st.floats(0, 1, width=32)


@st.composite
def pixels_and_points(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 8))
    x = draw(st.lists(FLOATS, min_size=size, max_size=size))
    v = draw(st.lists(st.floats(-3, 3, width=32), min_size=size, max_size=size))
    return np.array(x), np.array(v)


@given(pixels_and_points(), st.floats(1e-3, 1))
@settings(deadline=None)
def test_linf_projection_is_the_nearest_point_of_ball_and_box(pair: tuple[np.ndarray, np.ndarray], eps: float) -> None:
    x, v = pair
    expected = np.clip(v, np.maximum(x - eps, 0), np.minimum(x + eps, 1))
    got = Linf(eps=eps).project(torch.tensor(v)[None], torch.tensor(x)[None])[0]
    assert np.allclose(got, expected, atol=1e-12)


def l2_projection_by_root_finding(v: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """The KKT conditions give clip((v + m x) / (1 + m)); the multiplier m is found by bracketing, not by sorting."""

    def point(multiplier: float) -> np.ndarray:
        return np.clip((v + multiplier * x) / (1 + multiplier), 0, 1)

    def excess(multiplier: float) -> float:
        return float(np.linalg.norm(point(multiplier) - x) - eps)

    return point(0.0) if excess(0.0) <= 0 else point(brentq(excess, 0, 1e9, xtol=1e-14, rtol=1e-14, maxiter=1000))


@given(pixels_and_points(), st.floats(1e-3, 3))
@settings(deadline=None)
def test_l2_projection_is_the_nearest_point_of_ball_and_box(pair: tuple[np.ndarray, np.ndarray], eps: float) -> None:
    x, v = pair
    got = L2(eps=eps).project(torch.tensor(v)[None], torch.tensor(x)[None])[0].numpy()
    assert np.allclose(got, l2_projection_by_root_finding(v, x, eps), atol=1e-6)


def l1_projection_by_root_finding(v: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """The KKT conditions give moves clip(|v - x| - m, 0, room); the multiplier m is found by bracketing."""
    room = np.where(v > x, 1 - x, x)

    def move(multiplier: float) -> np.ndarray:
        return np.clip(np.abs(v - x) - multiplier, 0, room)

    excess = move(0.0).sum() - eps
    multiplier = 0.0 if excess <= 0 else brentq(lambda m: move(m).sum() - eps, 0, 10, xtol=1e-15, rtol=1e-14)
    return x + np.sign(v - x) * move(multiplier)


@given(pixels_and_points(), st.floats(1e-3, 5))
@settings(deadline=None)
def test_l1_projection_is_the_nearest_point_of_ball_and_box(pair: tuple[np.ndarray, np.ndarray], eps: float) -> None:
    x, v = pair
    got = L1(eps=eps).project(torch.tensor(v)[None], torch.tensor(x)[None])[0].numpy()
    assert np.allclose(got, l1_projection_by_root_finding(v, x, eps), atol=1e-9)


@pytest.mark.parametrize("threat", [Linf(eps="8/255"), L2(eps=0.5), L2(eps=60.0), L1(eps=3.0), L1(eps=500.0)])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0])
def test_projections_of_large_pictures_stay_inside_in_float32(threat: Ball, scale: float) -> None:
    """150,528 rounding errors must not add up to more than the tolerance."""
    x = images(2, shape=(3, 224, 224))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert threat.contains(threat.project(x + scale * noise, x), x).all()


def test_l2_projection_agrees_with_a_general_solver() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, v = rng.uniform(0, 1, 5), rng.uniform(-1, 2, 5)
        solved = minimize(
            lambda z, v=v: ((z - v) ** 2).sum(),
            x,
            bounds=[(0, 1)] * 5,
            constraints={"type": "ineq", "fun": lambda z, x=x: 0.4**2 - ((z - x) ** 2).sum()},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        ).x
        got = L2(eps=0.4).project(torch.tensor(v)[None], torch.tensor(x)[None])[0].numpy()
        assert np.allclose(got, solved, atol=1e-5)


@pytest.mark.parametrize(
    "threat",
    [Linf(eps=0.1), L1(eps=2), L1(eps=2, box=None), L2(eps=0.5), L2(eps=0.5, box=None), Linf(eps=0.2, box=(-1, 1))],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projected_points_are_contained_and_stay_where_they_are(threat: Ball, dtype: torch.dtype) -> None:
    x = images(50, dtype=dtype)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    projected = threat.project(far, x)
    assert threat.contains(projected, x).all()
    assert torch.allclose(threat.project(projected, x), projected, atol=1e-6)
    assert not threat.contains(x + 1.5, x).any()


@pytest.mark.parametrize("box", [(0, 255), (200, 201), None])
@pytest.mark.parametrize("threat", [Linf, L2, L1])
@pytest.mark.parametrize("eps", [1e-3, 0.1, 1])
def test_float32_is_enough_for_pixels_far_from_0(threat: type[Ball], box: tuple[int, int] | None, eps: float) -> None:
    """Near 200 it is spaced 1.5e-5."""
    x = 200 + images(20, shape=(3, 32, 32))
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    ball = threat(eps=eps, box=box)  # type: ignore[call-arg]
    assert ball.contains(ball.project(far, x), x).all()
    assert ball.contains(ball.start(x, SampleRng.numbered(20)), x).all()
    assert not ball.contains(ball.project(far, x) + 1.5 * eps * ball.direction(torch.ones_like(x)), x).any()


@pytest.mark.parametrize("threat", [Linf, L2, L1])
@pytest.mark.parametrize("eps", [0.01, torch.tensor([0.01, 0.02])])
def test_a_large_feature_is_no_leave_for_the_others(threat: type[Ball], eps: float | Tensor) -> None:
    """Float32 is spaced 0.004 near 50,000."""
    x = images(2, shape=(100,))
    x[:, 0] = 50_000.3
    ball = threat(eps=eps, box=None)  # type: ignore[call-arg]
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert ball.contains(ball.project(far, x), x).all()
    moved = x.clone()
    moved[:, 1] += 1.001 * ball.radius(x)[:, 0]
    assert not ball.contains(moved, x).any()
    moved[:, 0] += 0.004  # a step of the large one's rounding
    assert not ball.contains(moved, x).any()


@pytest.mark.parametrize("box", [None, (0, 1e7)])
def test_a_large_feature_is_no_leave_for_one_more_pixel(box: tuple[float, float] | None) -> None:
    x = images(2, shape=(10,))
    x[:, 0] = 3e6
    ball = L0(eps=2, box=box)
    assert ball.contains(x + 0.5 * (torch.arange(10) < 2), x).all()
    assert not ball.contains(x + 0.5 * (torch.arange(10) < 3), x).any()


@pytest.mark.parametrize("distance", [1.0, 1e6, 1e15, 1e18, 1e20, 1e37])
@pytest.mark.parametrize(
    ("threat", "each"),
    [
        (Linf(eps=0.1), 0.1),
        (L2(eps=0.3), 0.1),
        (L2(eps=0.3, box=None), 0.1),
        (L1(eps=0.9), 0.1),
        (L1(eps=0.9, box=None), 0.1),
        (L2(eps=1e30), 0.5),
    ],
    ids=repr,
)
def test_a_point_is_projected_from_however_far(threat: Ball, each: float, distance: float) -> None:
    """Of nine pixels each goes as far as the others: at eps 1e30 to the end of the box."""
    x, signs = torch.full((1, 9), 0.5), torch.tensor([[1.0, -1, 1, 1, -1, -1, 1, -1, 1]])
    torch.testing.assert_close(threat.project(x + distance * signs, x), x + each * signs)
    assert threat.contains(threat.project(x + distance * signs, x), x).all()


@pytest.mark.parametrize("distance", [4.0, 1e6, 1e15, 1e20, 1e37])
def test_without_a_box_l1_keeps_only_the_pixels_that_went_farthest(distance: float) -> None:
    """Of two that went as far each gets a half of eps, however large eps is; one that went half as far gets none."""
    x, going = torch.zeros(1, 4), torch.tensor([[1.0, 0.5, -1, 0]])
    for eps in (0.9, 0.4 * distance):
        ball = L1(eps=eps, box=None)
        torch.testing.assert_close(ball.project(distance * going, x), eps / 2 * going.trunc())


@pytest.mark.parametrize("threat", [L2, L1])
@pytest.mark.parametrize("eps", [1e20, 1e30])
def test_a_step_of_an_eps_far_beyond_the_box_ends_in_its_corner(threat: type[Ball], eps: float) -> None:
    """As a step does by which every pixel may cross it."""
    net, x = small_net().eval(), images(12)
    attacks = {"far": FGSM(threat=threat(eps=eps)), "across": FGSM(threat=Linf(eps=1))}
    report = evaluate(net, x, own_labels(net, x), attacks, probe_masking=False, keep_adversarial=True)
    assert report.success["far"].any()
    torch.testing.assert_close(report.x_adv["far"], report.x_adv["across"])


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=0.3)])
def test_a_point_just_outside_is_not_contained(threat: Ball) -> None:
    x = torch.full((1, 4), 0.5)
    direction = threat.direction(torch.ones_like(x))
    assert threat.contains(x + float(threat.eps) * direction, x).all()
    assert not threat.contains(x + 1.001 * float(threat.eps) * direction, x).any()


def test_inside_l1_a_step_moves_as_many_pixels_as_are_asked_for_and_ties_do_not_depend_on_the_batch() -> None:
    """Each by as much: of eps 2 and 4 in a box of width 2, by 5 pixels for each that eps takes across it."""
    eps, grad = torch.tensor([2.0, 4.0]), torch.ones(2, 3, 8, 8)
    direction = L1(eps=eps, box=(0, 2), pixels_per_eps=5).direction(grad).flatten(1)
    assert [int(row.count_nonzero()) for row in direction] == [5, 10]
    torch.testing.assert_close(direction.sum(1), torch.ones(2))
    alone = L1(eps=eps[:1], box=(0, 2), pixels_per_eps=5).direction(grad[:1]).flatten(1)
    assert torch.equal(direction[:1], alone)
    with pytest.raises(ValueError, match=r"L1\(pixels_per_eps=...\) must be .*, got 0"):
        L1(eps=1, pixels_per_eps=0)


class Sharing(nn.Module):
    """Turns where the changes of many pixels add up to 0.95: a pixel that moves beyond 0.1 wins no more."""

    def forward(self, x: Tensor) -> Tensor:
        gain = (x - 0.5).clamp(max=0.1).flatten(1).sum(1)
        return torch.stack([torch.full_like(gain, 0.95), gain], 1)


def test_inside_l1_steps_along_the_gradient_itself_lead_further_where_pixels_share_the_gain() -> None:
    grad, mask = torch.randn(4, 3, 8, 8), torch.arange(8)[None, None, None] < 4
    direction = L1(eps=2, pixels_per_eps=None, mask=mask).direction(grad).flatten(1)
    torch.testing.assert_close(direction, 0.5 * nn.functional.normalize((grad * mask).flatten(1)))
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    few, along = (PGD(threat=L1(eps=1, pixels_per_eps=number), num_steps=20) for number in (3, None))
    report = evaluate(Sharing(), x, y, {"few": few, "along": along}, probe_masking=False)
    assert report.robust["few"].all()
    assert not report.robust["along"].any()


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=0.3)])
def test_starts_are_inside_and_fill_the_threat(threat: Ball) -> None:
    x = torch.full((2000, 1, 2, 2), 0.5)
    start = threat.start(x, SampleRng.numbered(2000))
    assert threat.contains(start, x).all()
    assert (start - x).mean(0).abs().max() < 0.02
    assert threat.distance(start, x).max() > 0.95 * float(threat.eps)


@pytest.mark.parametrize("free", [4, 2])
@pytest.mark.parametrize("threat", [Linf(eps=0.1, box=None), L2(eps=0.5, box=None), L1(eps=0.3, box=None)])
def test_starts_are_as_many_in_any_part_of_the_ball_as_it_has_volume(threat: Ball, free: int) -> None:
    """A share r^D of a ball of D pixels lies within r times its radius."""
    x = torch.full((8000, 1, 1, 4), 0.5, dtype=torch.float64)
    threat = replace(threat, mask=torch.arange(4)[None, None, None] < free)  # type: ignore[type-var]
    share = threat.distance(threat.start(x, SampleRng.numbered(8000)), x) / float(threat.eps)
    within = [float((share <= radius).double().mean()) for radius in (0.5, 0.8, 0.95)]
    assert within == pytest.approx([0.5**free, 0.8**free, 0.95**free], abs=0.02)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=0.3), L0(eps=2)])
@pytest.mark.parametrize(("pixel", "edge"), [(0.01, 0.0), (0.99, 1.0)])
def test_a_point_beyond_the_box_is_not_contained(threat: Ball, pixel: float, edge: float) -> None:
    x = torch.full((2, 1, 2, 2), pixel)
    x_adv = x.clone()
    x_adv[:, 0, 0, 0] = edge + torch.tensor([0.0, 0.01 if edge else -0.01])
    assert threat.contains(x_adv, x).tolist() == [True, False]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e20])
def test_l2_directions_have_unit_length_at_any_scale_of_the_gradient(scale: float) -> None:
    grad = torch.randn(8, 1, 5, 5, generator=torch.Generator().manual_seed(0)) * scale
    assert torch.allclose(L2(eps=1).direction(grad).flatten(1).norm(dim=1), torch.ones(8), atol=1e-5)
    assert (L2(eps=1).direction(torch.zeros(2, 3)) == 0).all()


def test_eps_is_read_as_people_write_it() -> None:
    assert Linf(eps="8/255").eps == 8 / 255
    assert Linf(eps="0.5 / 255").eps == 0.5 / 255
    assert L2(eps="0.5").eps == 0.5


@pytest.mark.parametrize("threat", [Linf, L1, L2])
@pytest.mark.parametrize(
    "eps", [0, -0.1, float("nan"), float("inf"), torch.tensor([0.1, 0.0]), torch.tensor([0.1, torch.inf])]
)
def test_an_eps_that_is_not_positive_is_an_error(threat: type, eps: object) -> None:
    with pytest.raises(ValueError, match=r"\(eps=...\) must be > 0"):
        threat(eps=eps)


@pytest.mark.parametrize("eps", [8, 255])
def test_an_eps_beyond_the_box_asks_for_eighths_of_255(eps: int) -> None:
    with pytest.raises(ValueError, match="did you mean 8/255"):
        Linf(eps=eps)


def test_an_eps_is_read_as_people_write_it() -> None:
    assert Linf(eps="8 / 255").eps == Linf(eps=8 / 255).eps
    assert repr(Linf(eps=0.1)) == "Linf(eps=0.1)"
    assert repr(Linf(eps="8/255")) == repr(Linf(eps=8 / 255)) == "Linf(eps=8/255)"
    for text in ("0.1234567", "2000.25", "12345.0", "0.99999999"):
        assert repr(L2(eps=text)) == f"L2(eps={text})"
    assert repr(Linf(eps=0.1, box=(-1, 1))) == "Linf(eps=0.1, box=(-1.0, 1.0))"


@pytest.mark.parametrize("kind", [Linf, EmbeddingBall])
def test_one_eps_per_sample_is_told_in_a_line_that_tells_it_from_others(kind: type[Linf | EmbeddingBall]) -> None:
    """By what they print, the signs of masking know which attacks work inside the same threat."""
    eps = torch.linspace(0.1, 0.2, 2000)
    other = eps.clone()
    other[1000] += 1e-3
    assert re.fullmatch(kind.__name__ + r"\(eps=<2000 from 0.1 to 0.2, [0-9a-f]{8}>\)", repr(kind(eps=eps)))
    assert repr(kind(eps=eps)) == repr(kind(eps=eps.clone())) != repr(kind(eps=other))
    coarse = torch.tensor([0.5, 1.0], dtype=torch.bfloat16)
    assert repr(kind(eps=coarse)).startswith(f"{kind.__name__}(eps=<2 from 0.5 to 1,")


@pytest.mark.parametrize("eps", ["eight", "8/0", "1/2/3", None])
def test_an_eps_that_is_no_number_is_an_error(eps: object) -> None:
    with pytest.raises(ValueError, match=r"Linf\(eps=...\) must be a number such as"):
        Linf(eps=eps)  # type: ignore[arg-type]


@pytest.mark.parametrize("box", [(1, 1), (0,), (0, 1, 2), 1, "01", (0, "white"), (0, float("inf")), (float("nan"), 1)])
def test_a_box_that_is_no_range_is_an_error(box: object) -> None:
    with pytest.raises(ValueError, match=r"L2\(box=...\) must be \(low, high\), two finite numbers, or None, got"):
        L2(eps=1, box=box)  # type: ignore[arg-type]


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.25), L1(eps=4), L1(eps=4, box=None), L1(eps=40)])
@pytest.mark.parametrize("change", ["constant", "normal"])
def test_float32_is_enough_for_as_many_pixels_as_a_photograph_has(threat: Ball, change: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 224, 224, generator=generator)
    far = torch.randn(x.shape, generator=generator)
    far = x + (0.01 * far.sign() if change == "constant" else far)
    projected = threat.project(far, x)
    assert threat.contains(projected, x).all()
    assert (threat.distance(projected, x) > 0.998 * float(threat.eps)).all()
