"""`unexplained`: gradients that hide a part of how a gain changes; what an attack and the diagnosis make of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L1, L2, PGD, Linf, Margin, SampleRng, Strongest, Untargeted, evaluate
from touchstone.attacks.cascade.climbs import Climbs
from touchstone.attacks.cascade.gain import Gain
from touchstone.attacks.cascade.sight import Sight
from touchstone.attacks.cascade.survivors import Survivors
from touchstone.attacks.parts.unexplained import unexplained
from touchstone.attacks.threats.ball import Ball

from .oracles import images, own_labels, small_net


def test_of_a_linear_gain_nothing_is_unexplained() -> None:
    slope, moves = torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.randn(5, 2, 2)
    assert torch.allclose(unexplained((slope * moves).sum(2), slope, moves), torch.zeros(2), atol=1e-6)


def test_what_a_gradient_hides_is_the_share_that_is_left_to_explain() -> None:
    moves = torch.tensor([[[1.0, 3.0]], [[-1.0, -3.0]]])  # of which the gradient says the first number alone
    assert unexplained(moves.sum(2), torch.tensor([[1.0, 0.0]]), moves).item() == pytest.approx(3 / 4)


def test_a_gain_that_does_not_move_is_explained() -> None:
    assert unexplained(torch.zeros(3, 1), torch.zeros(1, 4), torch.randn(3, 1, 4)).item() == 0


def test_what_may_be_rounding_of_a_change_is_explained() -> None:
    changes, moves = torch.tensor([[0.5, 0.5], [-0.5, -0.5]]), torch.zeros(2, 2, 4)
    assert unexplained(changes, torch.ones(2, 4), moves, torch.tensor([0.5, 0.125])).tolist() == [0, 0.75]


class HalfDetached(nn.Module):
    """An honest net whose gradient sees the right half of each image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return self.inner(torch.cat([left.detach(), right], -1))


class Mirrored(HalfDetached):
    """An honest net whose gradient is turned left to right."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_Mirror.apply(x))


class _Mirror(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.flip(-1)


HIDING = pytest.mark.parametrize("hiding", [HalfDetached, Mirrored])


@pytest.mark.parametrize(
    ("hiding", "threat", "most_hidden"),
    [
        (HalfDetached, Linf(eps=0.03), 0.4),
        (HalfDetached, L2(eps=0.2), 0.65),
        (Mirrored, Linf(eps=0.03), 0.2),
        (Mirrored, L2(eps=0.2), 0.45),
    ],
)
def test_where_gradients_hide_a_part_a_black_box_searches(
    threat: Ball, hiding: type[HalfDetached], most_hidden: float
) -> None:
    model, x = hiding().eval(), images(96)
    pgd = PGD(threat=threat, num_steps=40, num_restarts=3, objective=Untargeted(loss=Margin()))
    y, attacks = own_labels(model, x), {"strongest": Strongest(threat=threat), "pgd": pgd}
    hidden = evaluate(model, x, y, attacks, probe_masking=False)
    honest = evaluate(model.inner, x, y, {"strongest": attacks["strongest"]}, probe_masking=False)
    standing = {name: int(robust.sum()) for name, robust in hidden.robust.items()}
    print(threat, "standing", standing, "honest", int(honest.worst_case.sum()))
    hidden_from_it = standing["strongest"] - int(honest.worst_case.sum())
    assert hidden_from_it <= most_hidden * (standing["pgd"] - int(honest.worst_case.sum()))


@HIDING
@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=1)], ids=["linf", "l2", "l1"])
def test_gradients_that_hide_a_part_are_a_sign_of_masking(threat: Ball, hiding: type[HalfDetached]) -> None:
    model, x = hiding().eval(), images(48)
    pgd, y = PGD(threat=threat), own_labels(model, x)
    warnings = evaluate(model, x, y, {"pgd": pgd}).warnings
    assert any("did not say how it changed" in warning for warning in warnings), warnings
    assert not evaluate(model.inner, x, y, {"pgd": pgd}).warnings


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=1.0)], ids=["linf", "l2"])
def test_of_a_net_that_hides_nothing_no_sample_is_taken_for_blind(threat: Ball) -> None:
    """Though along a single step from a kink of the net a part of the change is beyond the gradient."""
    survivors = begun(threat)
    assert not len(Sight(survivors).with_hidden_slopes(survivors.everyone))


def test_a_first_climb_along_gradients_that_see_units_at_rest_is_nothing_to_compare_with() -> None:
    survivors = begun(L1(eps=1))
    before = survivors.num_passes.clone()
    assert not len(Sight(survivors).with_hidden_slopes(survivors.everyone))
    assert survivors.num_passes.equal(before)


def begun(threat: Ball) -> Survivors:
    """Honest samples after their first climb."""
    net, x = small_net().eval().requires_grad_(False), images(400)
    survivors = Survivors(threat, 200, net, x, own_labels(net, x), SampleRng.numbered(len(x)))
    if isinstance(threat, L1):
        Climbs(survivors).by_corners(survivors.everyone, num_steps=5, factor=1, gain=Gain(smooth=True))
    else:
        Climbs(survivors).inside(survivors.everyone, num_steps=8, momentum=0.25)
    return survivors
