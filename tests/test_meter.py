"""What is counted at the model while an attack runs."""

from __future__ import annotations

import torch
from torch import nn

from touchstone.attacks import Cost
from touchstone.attacks.judge.meter import metered


def test_a_gradient_is_zero_or_broken_or_neither() -> None:
    of_each = torch.tensor([[1.0], [0.0], [torch.nan], [-torch.inf], [2e8], [-9e7]])
    x = torch.ones(6, 1, requires_grad=True)
    with metered(nn.Identity()) as meter:
        torch.autograd.grad(nn.Identity()(x), x, of_each)
    assert meter.cost(0.0) == Cost()  # another model
    model = nn.Identity()
    with metered(model) as meter:
        (grad,) = torch.autograd.grad(model(x), x, of_each)
        model(x[:2].detach())
    assert torch.equal(grad.nan_to_num(), of_each.nan_to_num())
    model(x)  # nobody counts any more
    assert meter.cost(1.5) == Cost(8, 6, num_zero_gradients=1, num_broken_gradients=3, seconds=1.5)
