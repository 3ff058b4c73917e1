"""`AWP` where gradients are so small or so large that their squares are no numbers of float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import SampleRng
from touchstone.lightning_modules import AWP, Strategy
from touchstone.lightning_modules.adversarial_training import Criterion


@pytest.mark.parametrize("lead", [1.0, 30.0, 60.0, 85.0])
def test_weights_move_by_gamma_of_their_norm_however_sure_the_net_is(lead: float) -> None:
    """Where the true class leads by 60, no gradient is above 1e-26."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([lead, 0, 0]))
    at_each_pass: list[Tensor] = []
    net.register_forward_pre_hook(lambda *_: at_each_pass.append(net[1].weight.detach().clone()))
    x, y = torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    learned = AWP(Strategy(), gamma=0.01).learn(net, x, y, Criterion(), SampleRng.numbered(4))
    before, worst = at_each_pass
    torch.testing.assert_close((worst - before).norm(), 0.01 * before.norm(), rtol=1e-4, atol=0)
    assert learned is not None
    assert float(learned.loss.detach()) < 1


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(4, 1, 4, 4), torch.arange(4) % 3
    at_each_pass: list[Tensor] = []
    net.register_forward_pre_hook(lambda *_: at_each_pass.append(net[1].weight.detach().clone()))
    criterion = Criterion(lambda logits, y: scale * nn.functional.cross_entropy(logits, y))
    AWP(Strategy(), gamma=0.01).learn(net, x, y, criterion, SampleRng.numbered(4))
    before, worst = at_each_pass
    torch.testing.assert_close((worst - before).norm(), 0.01 * before.norm(), rtol=1e-4, atol=0)
