"""`AWP` where gradients are so small or so large that their squares are no numbers of float32, and in autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf, SampleRng
from touchstone.lightning_modules import AWP, MART, TRADES, Mixed, Strategy
from touchstone.lightning_modules.adversarial_training import Criterion

LINF = Linf(eps=0.1, box=None)
NEARBY = PGD(threat=LINF, num_steps=2, start_std=0.001)


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


@pytest.mark.parametrize("strategy", [Strategy(), Mixed(Strategy()), TRADES(NEARBY), MART(PGD(threat=LINF))])
def test_in_autocast_too_the_loss_is_that_of_the_moved_weights(strategy: Strategy) -> None:
    """Autocast keeps the weights in bfloat16 from their first use on, and does not see that they move."""
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(4, 1, 4, 4), torch.arange(4) % 3
    passes: list[tuple[Tensor, Tensor, Tensor]] = []
    net.register_forward_hook(lambda _, args, out: passes.append((args[0], net[1].weight.detach().clone(), out)))
    awp = AWP(strategy, gamma=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        learned = awp.learn(net, x, y, Criterion(), SampleRng.numbered(4))
        assert learned is not None
        learned.loss.backward()
        awp.after_backward(net)
        net(x)
    for images, weight, logits in passes:
        expected = images.flatten(1).bfloat16() @ weight.bfloat16().T + net[1].bias.bfloat16()
        torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)
    assert not torch.equal(passes[-2][1], passes[-1][1])  # moved, and given back
