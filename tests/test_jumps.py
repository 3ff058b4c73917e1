"""`Jumps`: changes of a gain that its gradients do not explain; what an attack and the diagnosis make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L0, L1, L2, PGD, Linf, Margin, Strongest, Untargeted, evaluate
from touchstone.attacks.core.ascend import gradient_of
from touchstone.attacks.parts.jumps import Jumps
from touchstone.attacks.threats.ball import Ball

from .oracles import images, own_labels, small_net


def jumps_along(gain: Callable[[Tensor], Tensor], points: Tensor) -> Jumps:
    """What is seen of a gain at the points `(steps, N, ...)`, one step after another."""
    jumps, rows = Jumps(points[0]), torch.arange(points.shape[1])
    measure = jumps.watched(lambda here, part: (gain(here), torch.zeros(len(part), dtype=torch.bool)), rows)
    for here in points:
        leaf = here.clone().requires_grad_()
        gradient_of(measure(leaf, rows)[0], leaf)
    return jumps


def test_a_jump_is_what_lies_beyond_the_gradients() -> None:
    """Along a slope of 0.1 from 0 to 0.9 a gain rises by 0.09, and in between by the sample's own jump, which counts
    from a twentieth of the scale on.
    """
    height = torch.tensor([0.0, 0.05, 0.2, 3.0], dtype=torch.float64)
    points = torch.linspace(0, 0.9, 10, dtype=torch.float64)[:, None, None].expand(10, 4, 1)
    jumps = jumps_along(lambda x: 0.1 * x[:, 0] + height * (x[:, 0] > 0.55), points)
    assert jumps.found(torch.zeros(4)).tolist() == [False, False, True, True]
    assert jumps.found(torch.full((4,), 20.0)).tolist() == [False, False, False, True]
    assert jumps.found(torch.full((4,), 62.0)).tolist() == [False, False, False, False]


def test_what_may_be_rounding_of_each_change_is_no_jump() -> None:
    """Of nine changes one is a jump of 3, beside 0.09 along the slope."""
    points = torch.linspace(0, 0.9, 10, dtype=torch.float64)[:, None, None]
    jumps = jumps_along(lambda x: 0.1 * x[:, 0] + 3 * (x[:, 0] > 0.55), points)
    rounding = torch.tensor([0.0, 0.32, 0.33], dtype=torch.float64)
    assert [bool(jumps.found(torch.zeros(1), off)) for off in rounding] == [True, True, False]


@pytest.mark.parametrize("bend", [torch.relu, torch.square, torch.sin], ids=["relu", "square", "sin"])
def test_where_a_gain_bends_it_does_not_jump(bend: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 20)
    jumps = jumps_along(lambda x: bend(x @ weight).sum(1), torch.randn(10, 50, 8))
    assert not jumps.found(torch.zeros(50)).any()


def test_between_long_steps_both_gradients_count() -> None:
    """Of a square half the sum of two slopes is exact, and the first slope alone misses all of the change."""
    points = torch.tensor([0.0, 3.0])[:, None, None]
    assert not jumps_along(lambda x: x.square().sum(1), points).found(torch.zeros(1)).any()


def test_a_gain_bends_that_rises_by_less_than_a_quarter_of_what_its_gradients_promise() -> None:
    """From 0 by 1 and by 1 again, x - bend x^2 rises by 2 - 4 bend, and the slopes at 0 and 1 promise 2 - 2 bend; where
    nothing is promised, or only one point has been seen, nothing bends.
    """
    bend, points = torch.tensor([0.0, 0.42, 0.44, 0.9]), torch.arange(3.0)[:, None, None].expand(3, 4, 1)
    bent = jumps_along(lambda x: x[:, 0] - bend * x[:, 0].square(), points).bent()
    assert bent.tolist() == [False, False, True, True]
    assert not jumps_along(lambda x: x.square().sum(1), torch.zeros(2, 3, 1)).bent().any()
    assert not jumps_along(lambda x: -x.sum(1), torch.zeros(1, 3, 1)).bent().any()


def test_what_is_not_finite_hides_no_jump() -> None:
    """A slope that is infinite where a pixel rests, and a gain that is NaN once."""
    points = torch.tensor([[0.0, 0.1], [0.0, 0.3], [0.0, 0.7], [0.0, 0.9]])[:, None]
    gains = iter((0.0, torch.nan, 0.0, 0.0))
    jumps = jumps_along(lambda x: x[:, 0].sqrt() + 5.0 * (x[:, 1] > 0.8) + next(gains), points)
    assert jumps.found(torch.full((1,), 20.0)).all()


class Winners(nn.Module):
    """Lets the highest units of each sample pass."""

    def forward(self, x: Tensor) -> Tensor:
        units = x.flatten(1)
        least = units.topk(units.shape[1] // 5, dim=1).values[:, -1:]
        return (units * (units >= least)).view_as(x)


def winners_take_all() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), Winners(), nn.Conv2d(16, 16, 3), Winners(), nn.Flatten(), nn.Linear(256, 4)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(
    "threat", [Linf(eps=0.03), pytest.param(L2(eps=0.2), marks=pytest.mark.slow)], ids=["linf", "l2"]
)
def test_where_the_margin_jumps_a_black_box_searches(threat: Ball) -> None:
    net, x = winners_take_all(), images(96, shape=(1, 8, 8))
    pgd = PGD(threat=threat, num_steps=40, num_restarts=3, objective=Untargeted(loss=Margin()))
    attacks = {"strongest": Strongest(threat=threat), "pgd": pgd}
    standing = Counter[str]()
    for seed in range(3):
        report = evaluate(net, x, own_labels(net, x), attacks, probe_masking=False, seed=seed)
        standing.update({name: int(robust.sum()) for name, robust in report.robust.items()})
    print(threat, "standing in three seeds", standing)
    assert 2 * standing["strongest"] <= standing["pgd"]


@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=1)], ids=["linf", "l2", "l1"])
def test_a_margin_that_jumps_is_a_sign_of_masking(threat: Ball) -> None:
    net, x = winners_take_all(), images(48, shape=(1, 8, 8))
    warnings = evaluate(net, x, own_labels(net, x), {"pgd": PGD(threat=threat)}).warnings
    assert any("changed more by jumps than along its gradients" in warning for warning in warnings), warnings


class Behind(nn.Module):
    """An honest net behind something that is done to its images."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = small_net(), change

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=1), L0(eps=2)], ids=["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize(
    "change",
    [lambda x: x, lambda x: x + 0.05 * torch.randn_like(x)],
    ids=["honest", "at random"],
)
def test_noise_is_no_jump(change: Callable[[Tensor], Tensor], threat: Ball) -> None:
    model, x = Behind(change).eval(), images(48)
    report = evaluate(model, x, own_labels(model.inner, x), {"s": Strongest(threat=threat)})
    assert not any("by jumps" in warning for warning in report.warnings), report.warnings
    assert report.cost["s"].num_forwards <= 150 * len(x)


class Rounded(nn.Module):
    """Class 0, by a margin of about 1 that hardly changes but by steps of its rounding."""

    def forward(self, x: Tensor) -> Tensor:
        margin = 1 + 1e-6 * x.flatten(1).sum(1)
        margin = margin + 1e-3 * (1e3 * x.detach().flatten(1).mean(1)).round().remainder(3)
        return torch.stack([margin, -margin], 1)


def test_rounding_is_no_jump() -> None:
    x, y = images(32), torch.zeros(32, dtype=torch.int64)
    warnings = evaluate(Rounded(), x, y, {"pgd": PGD(threat=Linf(eps=0.1))}).warnings
    assert not any("by jumps" in warning for warning in warnings), warnings
