"""`smooth_backward`: what a model gives stays as it is, and its gradient is that of the equation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks.core.smooth_backward import WIDTH, smooth_backward

from .oracles import images, small_net

RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "functional": F.relu,
    "torch": torch.relu,
    "method": Tensor.relu,
    "torch, in place": torch.relu_,
    "method, in place": Tensor.relu_,
}
IN_PLACE: list[Callable[[Tensor], Tensor]] = [nn.ReLU(inplace=True), torch.relu_, Tensor.relu_]


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_the_slope_of_a_relu_is_a_sigmoid_as_wide_as_a_tenth_of_what_it_is_given(
    relu: Callable[[Tensor], Tensor],
) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with smooth_backward():
        output = relu(x * 1)
    assert torch.equal(output, x.clamp_min(0))
    (grad,) = torch.autograd.grad((output * 3).sum(), x)
    values = x.detach().numpy()
    width = WIDTH * np.abs(values).mean((1, 2), keepdims=True)
    np.testing.assert_allclose(grad.numpy(), 3 / (1 + np.exp(-values / width)), rtol=1e-12)


def test_a_sample_has_the_same_gradient_alone_and_logits_stay_as_they_are() -> None:
    net, x = small_net().double().eval(), images(6).double()
    expected = net(x)

    def gradient(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        with smooth_backward():
            logits = net(x)
        assert torch.allclose(logits, expected[: len(x)], atol=1e-12)
        return torch.autograd.grad(logits.square().sum(), x)[0]

    assert torch.allclose(gradient(x)[:1], gradient(x[:1]), rtol=1e-9)


@pytest.mark.parametrize("relu", IN_PLACE, ids=["module", "torch", "method"])
def test_a_relu_in_place_is_one_inside_too_where_a_model_reads_again_what_it_has_given(
    relu: Callable[[Tensor], Tensor],
) -> None:
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def block(function: Callable[[Tensor], Tensor]) -> Tensor:
        given = x * 1
        return given + 3 * function(given)

    with smooth_backward():
        output = block(relu)
    assert torch.equal(output, 4 * x.clamp_min(0))
    (grad,) = torch.autograd.grad(output.sum(), x)
    values = x.detach().numpy()
    width = WIDTH * np.abs(values).mean(1, keepdims=True)
    np.testing.assert_allclose(grad.numpy(), 4 / (1 + np.exp(-values / width)), rtol=1e-12)


def test_outside_a_relu_is_as_ever_and_a_layer_of_zeros_passes_something() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    with smooth_backward():
        inside = torch.relu(x)
    outside = torch.relu(x)
    assert torch.equal(torch.autograd.grad(inside.sum(), x)[0], torch.full((1, 4), 0.5))
    assert torch.equal(torch.autograd.grad(outside.sum(), x)[0], torch.zeros(1, 4))


def test_units_at_rest_are_woken_where_the_gradient_alone_is_blind() -> None:
    """A unit that every sample leaves at rest: the gradient vanishes, the smooth one points to where it wakes."""
    x = torch.full((2, 3), 0.4, requires_grad=True)
    blind = torch.relu(x.sum(1, keepdim=True) - 1.3)
    assert not torch.autograd.grad(blind.sum(), x)[0].any()
    with smooth_backward():
        seeing = torch.relu(x.sum(1, keepdim=True) - 1.3)
    assert (torch.autograd.grad(seeing.sum(), x)[0] > 0).all()


def test_a_relu_of_numbers_that_belong_to_no_sample_is_left_as_it_is() -> None:
    for shape in ((), (3,)):
        scale = torch.full(shape, -1.0, requires_grad=True)
        with smooth_backward():
            output = torch.relu(scale)
        assert torch.equal(torch.autograd.grad(output.sum(), scale)[0], torch.zeros(shape))
