"""Models that call `torch.func` inside: contexts that change slopes leave what runs there as it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from touchstone.attacks import L2, PGD, Linf, Strongest, Threat, evaluate
from touchstone.attacks.core.past_saturation import past_saturation
from touchstone.attacks.core.smooth_backward import smooth_backward

from .judged import Called
from .oracles import images, own_labels, small_net

X = images(24)
NET = small_net().eval().requires_grad_(False)
NETS = [small_net(seed).eval().requires_grad_(False) for seed in range(2)]
WEIGHTS, BUFFERS = stack_module_state(NETS)  # type: ignore[arg-type]


def one_by_one(x: Tensor) -> Tensor:
    return vmap(lambda row: NET(row[None])[0])(x)


def of_several_nets(x: Tensor) -> Tensor:
    x = 2 * (x / 2).relu()  # the samples' own inside the transform, too
    return vmap(lambda w, b: functional_call(NET, (w, b), (x.relu(),)))(WEIGHTS, BUFFERS).mean(0)


def of_slopes(x: Tensor) -> Tensor:
    slopes = grad(lambda x: NET(x).relu().square().sum())(x)
    return slopes.flatten(1)[:, :4]


@pytest.mark.parametrize("forward", [one_by_one, of_several_nets, of_slopes])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5)])
def test_the_cascade_turns_at_least_what_a_short_climb_does(
    forward: Callable[[Tensor], Tensor], threat: Threat
) -> None:
    model = Called(forward)
    suite = {"strongest": Strongest(threat=threat, max_passes=40), "pgd": PGD(threat=threat, num_steps=10)}
    report = evaluate(model, X, own_labels(model, X), suite, probe_masking=False)
    assert 0 < report.success["pgd"].sum() <= report.success["strongest"].sum()


@pytest.mark.parametrize("context", [smooth_backward, lambda: past_saturation(len(X))])
@pytest.mark.parametrize("unit", [F.relu, torch.tanh])
def test_gradients_through_a_transform_are_those_of_outside(
    context: Callable[[], AbstractContextManager[object]], unit: Callable[[Tensor], Tensor]
) -> None:
    x = (9 * X.flatten(1) - 4).requires_grad_()
    scales = torch.tensor([1.0, 2.0])

    def logits() -> Tensor:
        return vmap(lambda scale: unit(x) + unit(scale * x))(scales).sum(0)

    (plain,) = torch.autograd.grad(logits().sum(), x)
    with context():
        output = logits()
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], plain)
