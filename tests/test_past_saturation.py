"""`past_saturation`: what a model gives stays as it is, and its gradient is that of wider units."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from touchstone.attacks.core.past_saturation import WIDTH, past_saturation


def tanh_slope(x: np.ndarray) -> np.ndarray:
    return 1 - np.tanh(x) ** 2


def sigmoid_slope(x: np.ndarray) -> np.ndarray:
    return np.exp(-x) / (1 + np.exp(-x)) ** 2


def slope_inside(low: float, high: float, slope: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: slope * ((low < x) & (x < high))


UNITS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "tanh, module": (nn.Tanh(), tanh_slope),
    "tanh, torch": (torch.tanh, tanh_slope),
    "tanh, method": (Tensor.tanh, tanh_slope),
    "sigmoid, module": (nn.Sigmoid(), sigmoid_slope),
    "sigmoid, torch": (torch.sigmoid, sigmoid_slope),
    "sigmoid, functional": (F.sigmoid, sigmoid_slope),
    "tanh, by keyword": (lambda x: torch.tanh(input=x), tanh_slope),
    "tanh, torch, in place": (torch.tanh_, tanh_slope),
    "sigmoid, method, in place": (Tensor.sigmoid_, sigmoid_slope),
    "hardtanh": (nn.Hardtanh(), slope_inside(-1, 1)),
    "hardtanh, in place": (nn.Hardtanh(inplace=True), slope_inside(-1, 1)),
    "hardtanh of another range": (nn.Hardtanh(-2.0, 0.5), slope_inside(-2, 0.5)),
    "hardsigmoid": (nn.Hardsigmoid(), slope_inside(-3, 3, 1 / 6)),
    "relu6": (nn.ReLU6(), slope_inside(0, 6)),
    "relu6, in place": (nn.ReLU6(inplace=True), slope_inside(0, 6)),
}


def spread(size: float) -> Tensor:
    """Three samples, the last of which is small enough that no unit saturates."""
    x = size * torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[2] *= 0.01
    return x.requires_grad_()


@pytest.mark.parametrize(("unit", "slope"), UNITS.values(), ids=UNITS.keys())
def test_the_slope_is_that_of_a_unit_as_wide_as_its_layer_is_given_much(
    unit: Callable[[Tensor], Tensor], slope: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = spread(20.0)
    with past_saturation(len(x)) as units:
        output = unit(x * 1)
    assert torch.equal(output, unit(x * 1))
    (grad,) = torch.autograd.grad((output * 3).sum(), x)
    values = x.detach().numpy()
    width = np.maximum(1, WIDTH * np.abs(values).mean((1, 2), keepdims=True))
    assert width[0] > 1
    assert width[2] == 1
    np.testing.assert_allclose(
        grad.numpy(), 3 * slope(values / width) / width, rtol=1e-7, atol=1e-15
    )  # torch's hardsigmoid has a sixth in float32
    assert units.widest is not None
    np.testing.assert_allclose(units.widest.numpy(), width[:, 0, 0], rtol=1e-12)


def test_it_looks_without_changing_a_gradient() -> None:
    x = spread(20.0)
    with past_saturation(3, widens=False) as units:
        output = torch.tanh(x)
    (grad,) = torch.autograd.grad(output.sum(), x)
    assert torch.equal(grad, torch.autograd.grad(torch.tanh(x).sum(), x)[0])
    assert units.widest is not None
    assert (units.widest[:2] > 1).all()


def sigmoid_then_change(h: Tensor) -> Tensor:
    gate = torch.sigmoid(h)
    return h.mul_(gate)


def tanh_of_a_checkpoint(h: Tensor) -> Tensor:
    return checkpoint(lambda part: torch.tanh(part) * 2, h, use_reentrant=False)  # type: ignore[no-any-return]


def tanh_of_each(h: Tensor) -> Tensor:
    return torch.tanh(torch.func.vmap(lambda row: torch.sigmoid(50 * row))(h))


def tanh_beside_integers(h: Tensor) -> Tensor:
    return torch.tanh(h) * torch.sigmoid(torch.arange(60).view(3, 4, 5)) * torch.tanh(torch.ones(3, 4, 5).bool())


@pytest.mark.parametrize(
    "layer",
    [sigmoid_then_change, tanh_of_a_checkpoint, tanh_of_each, tanh_beside_integers],
    ids=lambda layer: layer.__name__,
)
def test_a_model_goes_on_that_does_more_with_such_units(layer: Callable[[Tensor], Tensor]) -> None:
    x = spread(20.0)
    for widens in (False, True):
        with past_saturation(len(x), widens=widens):
            output = layer(x * 1)
        assert torch.equal(output, layer(x * 1))
        assert torch.autograd.grad(output.sum(), x)[0].isfinite().all()


def test_masks_count_for_nothing() -> None:
    x = spread(20.0)
    masked = x.masked_fill(torch.arange(5) > 2, -1e9)
    with past_saturation(len(x)) as units:
        torch.sigmoid(masked)
    assert units.widest is not None
    expected = (WIDTH * x[..., :3].detach().abs().mean((1, 2))).clamp_min(1)
    torch.testing.assert_close(units.widest, expected)


@pytest.mark.parametrize("shape", [(4, 3), (12, 5)], ids=["of a gate", "of windows"])
def test_a_layer_of_another_first_axis_than_the_samples_is_left_as_it_is(shape: tuple[int, int]) -> None:
    x = spread(20.0)
    with past_saturation(len(x)) as units:
        output = torch.tanh(x.reshape(-1)[: shape[0] * shape[1]].reshape(shape))
    assert units.widest is None
    expected = torch.tanh(x.reshape(-1)[: shape[0] * shape[1]])
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_a_sample_has_the_same_gradient_alone_and_the_widest_units_are_those_of_any_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3)
    ).double()

    def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().clone().requires_grad_()
        with past_saturation(len(x)) as units:
            logits = net(leaf)
        assert torch.allclose(logits, net(leaf), atol=1e-12)
        assert units.widest is not None
        return torch.autograd.grad(logits.square().sum(), leaf)[0], units.widest

    x = spread(20.0)
    (together, widest), (alone, widest_alone) = gradient(x), gradient(x[:1])
    assert torch.allclose(together[:1], alone, rtol=1e-9)
    assert torch.allclose(widest[:1], widest_alone, rtol=1e-9)
    first = net[1](x.flatten(1)).detach().abs().mean(1)
    assert (widest >= (WIDTH * first).clamp_min(1) - 1e-9).all()


def test_what_has_no_axis_beside_that_of_the_samples_is_no_layer() -> None:
    x = torch.full((4,), 30.0, requires_grad=True)
    with past_saturation(len(x)) as units:
        output = torch.tanh(x)
    assert units.widest is None
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], torch.zeros(4))
