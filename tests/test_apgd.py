"""`APGD`: its schedule as published, its steps on gains made up for it, and the worst case on a linear model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from touchstone.attacks import APGD, DLR, L1, L2, PGD, Linf, Margin, Objective, Targeted, Untargeted, evaluate
from touchstone.attacks.parts.adaptive import HalvingClimb, SparseClimb, climb
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images, own_labels, small_net


@pytest.mark.parametrize("num_steps", [20, 50, 100, 250])
def test_the_step_is_looked_at_where_the_paper_says(num_steps: int) -> None:
    """Section 3.1: p_0 = 0, p_1 = .22, p_(j+1) = p_j + max(p_j - p_(j-1) - .03, .06); to a step, after rounding."""
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    published = [math.ceil(round(share * num_steps, 6)) for share in p[1:] if share < 1]
    looks = HalvingClimb.looks(num_steps)
    if num_steps == 100:
        assert list(looks) == published == [22, 41, 57, 70, 80, 87, 93, 99]
    assert np.allclose(list(looks)[: len(published)][:5], published[:5], atol=5)
    assert np.cumsum(list(looks.values())).tolist() == list(looks)


def on_a_line(gains: list[float], downhill_from: int = 1000) -> tuple[list[float], float]:
    """Climbs one pixel in [-1, 1] whose gain at the k-th point is made up: the points, and the step at the end.

    The gradient leads up, and from one of the points on down.
    """
    points: list[float] = []

    def measure(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        number = len(points)
        points.append(float(x.detach()))
        slope = 1e-12 if number < downhill_from else -1e-12
        return slope * x[:, 0] + gains[number], torch.zeros(1, dtype=torch.bool)

    x = torch.zeros(1, 1, dtype=torch.float64)
    climbing = HalvingClimb.begin(x, x - 1, Linf(eps=1.0, box=None), rho=0.75)
    climb(measure, climbing, len(gains) - 1)
    return points, float(climbing.step)


def test_the_step_is_halved_and_the_climb_goes_back_to_the_best_point_where_gains_fall() -> None:
    points, step = on_a_line([0.0, 5.0] + [-float(k) for k in range(99)], downhill_from=1)
    assert points[:2] == [-1.0, 1.0]  # a full step of twice eps
    assert points[5:23] == [-1.0] * 18
    # From the best point, 1, half the first step down, and a quarter of the way that it has come: 1 - 3/4 + 2/4.
    assert points[23] == pytest.approx(0.75)
    assert step == 2.0 / 2 ** len(HalvingClimb.looks(100))


def test_the_step_stays_where_gains_rise() -> None:
    _, step = on_a_line([float(k) for k in range(101)])
    assert step == 2.0


def test_the_step_is_halved_once_where_the_gain_no_longer_rises_though_no_step_was_halved_before() -> None:
    """Condition 2: rises that reach no new best halve the step, but not at two looks in a row."""
    rising, again = [float(k) for k in range(23)], [float(k) - 100 for k in range(78)]
    _, step = on_a_line(rising + again)
    looks = HalvingClimb.looks(100)
    assert len(looks) == 8
    assert step == 2.0 / 2**4  # at the 2nd, 4th, 6th and 8th look


def test_of_all_points_the_best_is_returned() -> None:
    attack = APGD(threat=Linf(eps=0.002), num_steps=12)
    net, x = small_net().eval(), images(4)
    y, seen = own_labels(net, x), []  # nobody falls in so small a ball, so that nobody leaves

    def note(module: torch.nn.Module, args: tuple[Tensor], logits: Tensor) -> None:
        seen.append(torch.nn.functional.cross_entropy(logits, y, reduction="none").detach())

    handle = net.register_forward_hook(note)
    x_adv = attack(net, x, y)
    handle.remove()
    assert len(seen) == 13
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(net(x_adv), y, reduction="none")
    assert torch.allclose(loss, torch.stack(seen).amax(0), atol=1e-6)


def test_a_sample_that_has_reached_its_goal_leaves_with_that_point_whatever_its_gain() -> None:
    points: list[float] = []

    def measure(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        points.append(float(x.detach()[0, 0]))
        return x[:, 0] - 100.0 * (len(points) == 4), torch.full((1,), len(points) == 4)

    x = torch.zeros(1, 2, dtype=torch.float64)
    found = climb(measure, HalvingClimb.begin(x, x - 0.9, L2(eps=1.0, box=None), rho=0.75), 50)
    assert len(points) == 4
    assert float(found[0, 0]) == points[3]


def worst_case(x: np.ndarray, slope: np.ndarray, threat: Ball) -> float:
    """The largest gain of a linear function inside ball and box, by a general solver."""
    eps, bounds = float(threat.eps), list(zip(-x, 1 - x, strict=True))  # type: ignore[arg-type]
    if threat.p == 2:
        ball = {"type": "ineq", "fun": lambda m: eps**2 - m @ m}
        return float(-minimize(lambda m: -(slope @ m), 0 * x, bounds=bounds, constraints=ball).fun)
    if threat.p == 1:  # the positive and the negative part of the move
        parts = linprog(
            c=np.r_[-slope, slope],
            A_ub=np.ones((1, 2 * len(x))),
            b_ub=[eps],
            bounds=[(0, high) for _, high in bounds] + [(0, -low) for low, _ in bounds],
        )
        return float(-parts.fun)
    return float(np.maximum(slope * np.maximum(-eps, -x), slope * np.minimum(eps, 1 - x)).sum())


@pytest.mark.parametrize(
    ("threat", "least"),
    [(Linf(eps=0.3), 0.999), (L2(eps=0.8), 0.999), (L1(eps=2.0), 0.95)],  # L1 ends with the pixels it has settled on
    ids=["linf", "l2", "l1"],
)
def test_reaches_the_worst_case_of_a_linear_model_where_the_box_cuts_the_ball(threat: Ball, least: float) -> None:
    model = LinearModel(num_classes=2, seed=3)
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([90.0, -90.0]))  # nothing falls, so that every gain is climbed to its end
    x = torch.rand(8, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = model(x).argmax(1)
    x_adv = APGD(threat=threat, objective=Untargeted(loss=Margin()))(model, x, y)
    weight = model.linear.weight.detach().numpy()
    for start, end, own in zip(x.flatten(1).numpy(), x_adv.flatten(1).numpy(), y.tolist(), strict=True):
        slope = weight[1 - own] - weight[own]
        assert least <= slope @ (end - start) / worst_case(start, slope, threat) <= 1 + 1e-6


@pytest.mark.parametrize("threat", [Linf(eps=0.3), L2(eps=0.8), L1(eps=2.0)], ids=["linf", "l2", "l1"])
def test_inside_a_mask_it_reaches_the_worst_case_of_the_free_pixels(threat: Ball) -> None:
    """Outside the mask the gradient is ten times as steep, and leads nowhere."""
    model, free = LinearModel(num_features=36, num_classes=2, seed=3), np.arange(36) % 2 == 0
    with torch.no_grad():
        model.linear.weight[:, torch.from_numpy(~free)] *= 10
        model.linear.bias.copy_(torch.tensor([900.0, -900.0]))  # nothing falls
    x = images(8, dtype=torch.float64)
    y = model(x).argmax(1)
    masked = replace(threat, mask=torch.from_numpy(free).reshape(1, 1, 6, 6))  # type: ignore[type-var]
    x_adv = APGD(threat=masked, objective=Untargeted(loss=Margin()))(model, x, y)
    weight = model.linear.weight.detach().numpy()
    for start, end, own in zip(x.flatten(1).numpy(), x_adv.flatten(1).numpy(), y.tolist(), strict=True):
        slope = (weight[1 - own] - weight[own])[free]
        assert slope @ (end - start)[free] >= 0.95 * worst_case(start[free], slope, threat)


def test_sparse_steps_change_few_pixels_and_reach_more_than_dense_ones() -> None:
    net, x = small_net(seed=3).eval(), images(64)
    y, threat = own_labels(net, x), L1(eps=1.2)
    loss = Untargeted(loss=Margin())
    attacks = {
        "apgd": APGD(threat=threat, num_steps=20, objective=loss),
        "pgd": PGD(threat=threat, num_steps=20, objective=loss, rel_step_size=0.25),
    }
    report = evaluate(net, x, y, attacks, keep_adversarial=True)
    assert report.robust["apgd"].sum() <= report.robust["pgd"].sum()
    changed = (report.x_adv["apgd"] != x).flatten(1).sum(1)[report.robust["apgd"]]
    assert changed.float().mean() < 0.5 * x[0].numel()


def test_a_sparse_step_changes_the_pixels_with_the_largest_gradients() -> None:
    """As many as the best point has changed over 1.5."""
    x = torch.full((2, 1, 4, 5), 0.5, dtype=torch.float64)
    start = x.clone()
    start[0, 0, 0, :3] += 1e-9
    start[1] += 1e-9
    begin = SparseClimb.begin(x, start, L1(eps=1.0))
    begin.grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    begin.advance(first=True)
    moved = ((begin.here - start).abs() > 1e-6).flatten(1)
    assert moved.sum(1).tolist() == [2, 14]  # 3 / 1.5, and 20 / 1.5 rounded up
    size = begin.grad.flatten(1).abs()
    for row in range(2):
        assert size[row][moved[row]].min() > size[row][~moved[row]].max()


def test_more_restarts_and_targets_never_hurt() -> None:
    net, x = small_net().eval(), images(48)
    y, attack = own_labels(net, x), APGD(threat=Linf(eps=0.02), num_steps=4)
    alone = evaluate(net, x, y, {"a": attack}).robust["a"]
    assert not (evaluate(net, x, y, {"a": replace(attack, num_restarts=3)}).robust["a"] & ~alone).any()
    towards = replace(attack, num_targets=1, objective=Untargeted(loss=DLR()))
    nearest = evaluate(net, x, y, {"a": towards}).robust["a"]
    assert not (evaluate(net, x, y, {"a": replace(towards, num_targets=3)}).robust["a"] & ~nearest).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": "1/2"}, r"APGD\(rho=...\) must be a number, got '1/2'"),
        ({"rho": 0}, r"APGD\(rho=...\) must be in \(0, 1\), got 0"),
        ({"num_steps": 0}, r"APGD\(num_steps=...\) must be >= 1"),
        ({"num_targets": -1}, r"APGD\(num_targets=...\) must be >= 0"),
        ({"num_targets": 2, "objective": Targeted(target=1)}, "needs an Untargeted objective"),
    ],
)
def test_what_is_outside_its_range_is_an_error(options: dict[str, float | Objective], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        APGD(threat=Linf(eps=0.1), **options)  # type: ignore[arg-type]
