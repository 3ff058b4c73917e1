"""`rounding`: what rounding does to logits, and that no attack and no diagnosis takes it for masking."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L1, L2, PGD, Linf, Strongest, evaluate
from touchstone.attacks.core.rounding import rounding
from touchstone.attacks.objectives.losses import Margin
from touchstone.attacks.threats.ball import Ball

from .judged import Called
from .oracles import images, own_labels, small_net


@pytest.mark.parametrize(
    ("as_held", "bits", "few"),
    [
        (lambda z: z, 23, 64),
        (lambda z: z.half().float(), 10, 4),
        (lambda z: z.bfloat16().float(), 7, 4),
        (lambda z: (z * 2).round() / 2, 23, 64),  # a few levels: no rounding
        (lambda z: z.double() / 3, 52, 64),
    ],
    ids=["float32", "float16", "bfloat16", "levels", "float64"],
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_it_is_a_few_spacings_of_the_precision_that_holds_the_logits(
    as_held: Callable[[Tensor], Tensor], bits: int, few: int, scale: float
) -> None:
    logits = as_held(torch.rand(200, 10).clamp_min(0.1)) * 2.0 ** round(np.log2(scale))
    found = rounding(logits)
    assert found.dtype == logits.dtype
    spacings = found.numpy() / 2.0 ** (np.floor(np.log2(logits.numpy().max(1))) - bits)
    assert spacings.min() >= few
    assert spacings.max() < 2 * few


def test_nearly_all_margins_of_a_convolutional_net_in_float32_are_as_near_as_that_to_those_in_float64() -> None:
    net, x = small_net().eval(), images(500)
    y, allowed = own_labels(net, x), rounding(net(x).detach())
    rounded, exact = (
        Margin()(model(points), y) for model, points in ((net, x), (copy.deepcopy(net).double(), x.double()))
    )
    assert ((rounded - exact).abs() <= allowed).double().mean() >= 0.98


def test_an_infinite_logit_counts_for_nothing() -> None:
    logits = torch.tensor([[1.5, -torch.inf, 0.3]])
    assert torch.equal(rounding(logits), rounding(logits[:, [0, 2]]))


class Autocast(nn.Module):
    """Computes in bfloat16, whatever its judge does around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


@pytest.mark.parametrize("in_bfloat16", [lambda net: copy.deepcopy(net).bfloat16(), Autocast], ids=["weights", "cast"])
@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=1)], ids=["linf", "l2", "l1"])
def test_an_honest_net_in_bfloat16_shows_no_sign_and_costs_no_more(
    in_bfloat16: Callable[[nn.Module], nn.Module], threat: Ball
) -> None:
    net, x, attacks = small_net().eval(), images(96), {"s": Strongest(threat=threat), "pgd": PGD(threat=threat)}
    y = own_labels(net, x)
    whole, half = (evaluate(model, x, y, attacks) for model in (net, in_bfloat16(net)))
    passes = [report.cost["s"].num_forwards + report.cost["s"].num_backwards for report in (whole, half)]
    print(threat, "passes", passes, "standing", [int(report.robust["s"].sum()) for report in (whole, half)])
    assert not half.warnings
    assert passes[1] <= 1.5 * passes[0]


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_an_eps_that_is_lost_in_the_pixels_is_no_sign(kind: type[Linf | L2], eps: float) -> None:
    net, x = small_net().eval(), images(48)
    assert not evaluate(net, x, own_labels(net, x), {"pgd": PGD(threat=kind(eps=eps))}).warnings


def passing(levels: Tensor, smooth: Tensor) -> Tensor:
    """The levels, with the gradient of what they were made from."""
    return smooth + (levels - smooth).detach()


@pytest.mark.parametrize("eps", [0.01, 0.03])
@pytest.mark.parametrize("of_the_input", [False, True], ids=["logits", "input"])
def test_eight_levels_are_a_sign_though_gradients_pass_them(eps: float, of_the_input: bool) -> None:
    net, x = small_net().eval(), images(48)
    step = float(net(x).detach().abs().max()) / 8

    def quantised(x: Tensor) -> Tensor:
        if of_the_input:
            return net(passing((x * 8).round() / 8, x))
        logits = net(x)
        return passing((logits / step).round(), logits / step)

    model = Called(quantised)
    warnings = evaluate(model, x, own_labels(model, x), {"pgd": PGD(threat=Linf(eps=eps))}).warnings
    assert any("try a black box" in warning for warning in warnings), warnings


def test_rounding_that_depends_on_the_batch_is_not_blamed_on_the_other_images() -> None:
    """As kernels differ by batch size, in the last bit."""
    net, x = small_net().eval(), images(48)
    one_bit = 1 + 2**-7
    half = Called(lambda x: (net(x).bfloat16() * (one_bit if len(x) < 48 else 1)).float())
    whole = Called(lambda x: net(x) * (one_bit if len(x) < 48 else 1))
    assert not evaluate(half, x, own_labels(net, x), {}).warnings
    assert len(evaluate(whole, x, own_labels(net, x), {}).warnings) == 1


def test_two_classes_whose_logits_are_one_number_and_its_opposite_are_searched_for_no_longer() -> None:
    """One number in sixteen takes so few bits that it might be one of a few levels."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 1))
    x = images(48, shape=(3, 4, 4))

    def in_half(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            score = body(x)
        return torch.cat([-score, score], 1)

    def in_float32(x: Tensor) -> Tensor:
        return torch.cat([-body(x), body(x)], 1)

    passes = []
    for model in (Called(in_float32), Called(in_half)):
        attacks = {"s": Strongest(threat=Linf(eps=0.01))}
        passes.append(evaluate(model, x, own_labels(model, x), attacks, probe_masking=False).cost["s"].num_forwards)
    assert passes[1] <= 1.5 * passes[0]
