"""`RNN`, `LSTM`, `GRU` under `torch.func`, and their forward-mode and batched derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .recurrent_pairs import H, assert_equal, every_cell, inputs, pair


def weighted(module: nn.Module, x: Tensor) -> Tensor:
    """One number of a module's outputs, each of which counts differently."""
    output, _ = module(x)
    return (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()


@every_cell
def test_gradients_by_torch_func_are_those_of_autograd_and_of_torch(case: str) -> None:
    net, oracle = pair(case)
    x = inputs(case)[0].detach()
    found = torch.func.grad(lambda x: weighted(net, x))(x)
    leaf = x.clone().requires_grad_()
    assert_equal(found, torch.autograd.grad(weighted(net, leaf), leaf)[0])
    assert_equal(found, torch.func.grad(lambda x: weighted(oracle, x))(x))
    weights = dict(net.named_parameters())
    by_weights = torch.func.grad(lambda weights: torch.func.functional_call(net, weights, (x,))[0].square().sum())
    expected = torch.autograd.grad(oracle(x)[0].square().sum(), list(oracle.parameters()))
    assert_equal(by_weights(weights), dict(zip(weights, expected, strict=True)))


def tangent(run: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """A directional derivative by dual numbers, without `torch.func`."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(run(forward_ad.make_dual(x, direction))).tangent


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning")
@every_cell
def test_forward_mode_derivatives_are_those_of_torch(case: str) -> None:
    """torch's LSTM has none on a CPU: there, by central differences."""
    net, oracle = pair(case)
    x = inputs(case)[0].detach()
    direction = torch.randn_like(x)
    _, found = torch.func.jvp(lambda x: net(x)[0], (x,), (direction,))
    assert_equal(tangent(lambda x: net(x)[0], x, direction), found)
    if case != "lstm":
        assert_equal(found, torch.func.jvp(lambda x: oracle(x)[0], (x,), (direction,))[1])
    step = 1e-6 * direction
    differences = (oracle(x + step)[0] - oracle(x - step)[0]) / 2e-6
    torch.testing.assert_close(found, differences, atol=1e-8, rtol=1e-6)


@every_cell
def test_samples_side_by_side_are_those_one_by_one(case: str) -> None:
    """By vmap, which torch's own layers have no rule for: gradients of each sample."""
    net, oracle = pair(case)
    x = inputs(case)[0].detach()
    found = torch.func.vmap(torch.func.grad(lambda x: weighted(net, x[None])))(x)
    assert_equal(found, torch.stack([torch.func.grad(lambda x: weighted(oracle, x[None]))(one) for one in x]))


@every_cell
def test_after_a_transform_the_fast_layers_are_back(case: str) -> None:
    net, _ = pair(case)
    x = inputs(case)[0]
    torch.func.grad(lambda x: weighted(net, x))(x.detach())
    output, _ = net(x)
    names, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        names.add(type(node).__name__)
        todo += [inner for inner, _ in node.next_functions if inner is not None]
    assert any(name.endswith("ScanBackward") for name in names)


@every_cell
def test_the_plain_steps_give_batched_gradients(case: str) -> None:
    net, oracle = pair(case, hand_written=False)
    x, _ = inputs(case)
    (found,) = torch.autograd.grad(net(x)[0][0, -1], x, torch.eye(H).double(), is_grads_batched=True)
    expected = [torch.autograd.grad(oracle(x)[0][0, -1, unit], x)[0] for unit in range(H)]
    assert_equal(found, torch.stack(expected))


@every_cell
def test_the_plain_steps_can_be_differentiated_by_torch_func(case: str) -> None:
    net, _ = pair(case, hand_written=False)
    x, _ = inputs(case)
    jacobian = torch.func.jacrev(lambda x: net(x)[0][:, -1].sum(0))(x.detach())
    expected = torch.autograd.functional.jacobian(lambda x: pair(case)[0](x)[0][:, -1].sum(0), x)
    assert_equal(jacobian, expected)
