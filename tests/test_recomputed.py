"""`recomputed`: the same logits and gradients as a plain pass, without its activations."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from touchstone.attacks import PGD, Linf, SampleRng
from touchstone.lightning_modules import AWP, MART, TRADES, Mixed, Strategy
from touchstone.lightning_modules.adversarial_training import Criterion
from touchstone.lightning_modules.adversarial_training.parts.recomputed import recomputed

from .oracles import images, small_net

PGD_1 = PGD(threat=Linf(eps=0.1), num_steps=1, to_the_end=True)


def test_gradients_and_running_statistics_are_those_of_one_plain_pass_with_the_same_dropout() -> None:
    net, x, y = small_net(7), images(8), torch.arange(8) % 4
    other = copy.deepcopy(net)
    for model, call in ((net, lambda: recomputed(net, x)), (other, lambda: other(x))):
        torch.manual_seed(3)
        logits = call()
        torch.rand(5)  # what comes between draws too
        F.cross_entropy(logits, y).backward()
        assert all(p.grad is not None for p in model.parameters())
    torch.testing.assert_close([p.grad for p in net.parameters()], [p.grad for p in other.parameters()])
    assert int(net[1].num_batches_tracked) == 1
    torch.testing.assert_close(net[1].running_mean, other[1].running_mean, rtol=0, atol=0)


def test_a_spectral_norm_steps_once_and_its_gradients_are_those_of_one_plain_pass() -> None:
    """Its vectors are buffers that every forward in train mode moves, and that the weights are divided by."""
    net, x, y = small_net(7), images(8), torch.arange(8) % 4
    net[3] = nn.Dropout(0)
    nn.utils.parametrizations.spectral_norm(net[5])
    other = copy.deepcopy(net)
    for call in (lambda: recomputed(net, x), lambda: other(x)):
        F.cross_entropy(call(), y).backward()
    for mine, plain in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in net.parameters()], [p.grad for p in other.parameters()])


class Counts(nn.Module):
    """Puts another tensor in the place of its buffer at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, x[:1, 0]])
        return self.linear(x) * len(self.seen)


def test_a_buffer_that_is_replaced_counts_one_pass() -> None:
    net = Counts()
    recomputed(net, torch.ones(3, 2)).sum().backward()
    assert net.seen.tolist() == [1]
    torch.testing.assert_close(net.linear.bias.grad, torch.full((2,), 3.0))


class Watched(nn.Module):
    """Counts the activations of its first layer that something holds, at each of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(7)
        self.held: list[StorageWeakRef] = []
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        features = self.net[0](x)
        self.held.append(StorageWeakRef(features.untyped_storage()))
        self.most = max(self.most, sum(not reference.expired() for reference in self.held))
        return self.net[1:](features)


def most_alive(strategy: Strategy) -> int:
    model, x, y = Watched(), images(8), torch.arange(8) % 4
    strategy.learn(model, x, y, Criterion(), SampleRng.numbered(8)).loss.backward()
    strategy.after_backward(model)
    return model.most


def test_strategies_that_pass_two_batches_hold_the_activations_of_one() -> None:
    class Both(Strategy):
        def learn(self, model: nn.Module, x: Tensor, *rest: object) -> object:
            held = model(x)
            learned = super().learn(model, x, *rest)
            return type(learned)(learned.loss + held.mean(), learned.logits)

    assert most_alive(Both()) == 2
    for strategy in (TRADES(PGD_1), MART(PGD_1), Mixed(Strategy()), AWP(TRADES(PGD_1))):
        assert most_alive(strategy) == 1, strategy
