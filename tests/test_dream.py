"""`dream`: what it climbs, for one layer and for several, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import dream
from touchstone.attacks.dream import start_of
from touchstone.attacks.dreaming import octave_climb
from touchstone.attacks.dreaming.layers import responses_to

from .dream_setting import OPTIONS, SHAPE, make_net


def activations(net: nn.Sequential, depth: int, x: Tensor) -> Tensor:
    """What the first layers put out, computed without hooks."""
    net = net.eval()
    with torch.no_grad():
        return net[:depth](x).flatten(1).clone()


class CountsItsCalls(nn.Module):
    num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return x


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_layer_responds_more_than_at_the_start(options: dict[str, Any]) -> None:
    net = make_net()
    start = start_of(net, SHAPE, decorrelated=options.get("decorrelated", False))
    found = dream(net, "4", SHAPE, num_steps=15, **options)
    before, after = activations(net, 5, start), activations(net, 5, found)
    measured = (lambda a: a.mean(1)) if options.get("objective") == "mean" else (lambda a: a.square().sum(1).sqrt())
    assert (measured(after) > measured(before)).all()
    assert found.shape == SHAPE
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_forward_stops_at_the_layer_and_several_layers_share_it() -> None:
    first, last = CountsItsCalls(), CountsItsCalls()
    net = nn.Sequential(first, make_net()[:2], nn.Conv2d(6, 4, 1), last)
    dream(net, "1", SHAPE, num_steps=3)
    assert (first.num_calls, last.num_calls) == (3, 0)
    dream(net, ["2", "1", "1.0:2"], SHAPE, num_steps=3)
    assert (first.num_calls, last.num_calls) == (6, 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_layer_gets_the_pictures_that_it_would_get_alone(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    net, layers = make_net().double(), ["4:1", "1", "4:3", "0:2", "4:1"]
    alone = torch.cat([dream(net, layer, SHAPE, num_steps=4, **options) for layer in layers])
    counter = CountsItsCalls()
    together = dream(
        nn.Sequential(counter, *net),
        [f"{int(n[0]) + 1}{n[1:]}" for n in layers],
        SHAPE,
        each=True,
        num_steps=4,
        **options,
    )
    assert torch.allclose(together, alone, atol=1e-9)
    assert counter.num_calls == 4 * options.get("num_octaves", 1)
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 3 * SHAPE[2] * SHAPE[3])  # parts with two layers in them
    assert torch.allclose(dream(net, layers, SHAPE, each=True, num_steps=4, **options), alone, atol=1e-9)


def test_work_in_place_behind_a_layer_does_not_reach_it() -> None:
    net, x = make_net().eval(), start_of(make_net(), SHAPE)
    with torch.no_grad(), responses_to(net, ["1", "4"], "mean") as responses:
        found = responses(x)
    assert torch.allclose(found["1"], activations(net, 2, x).mean(1))
    assert torch.allclose(found["4"], activations(net, 5, x).mean(1))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was_whatever_the_context(context: Any) -> None:
    net = make_net().train()
    net[1].eval()
    net[4].requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    with context():
        x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
        inside = dream(net, "4", x, num_steps=3)
    assert torch.equal(inside, dream(net, "4", x.clone(), num_steps=3))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [m.training for m in net] == [True, False, *[True] * 6]
    assert [p.requires_grad for p in net.parameters()] == [True] * 4 + [False] * 2 + [True] * 2
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken")


def test_no_hook_is_left_behind_by_an_error() -> None:
    net = nn.Sequential(make_net(), Breaks(), nn.ReLU())
    with pytest.raises(RuntimeError, match="broken"):
        dream(net, ["0.0", "2"], SHAPE)
    with pytest.raises(ValueError, match="there is no 99"):
        dream(net, "0.0:99", SHAPE)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.training


def test_alone_or_in_a_batch_a_picture_becomes_the_same() -> None:
    net = make_net().double()
    together = dream(net, "4", (3, 3, 16, 16), num_steps=5, jitter=2)
    x = start_of(net, (3, 3, 16, 16))
    assert torch.allclose(together[2:], dream(net, "4", x[2:], num_steps=5, jitter=2), atol=1e-12)
    assert torch.equal(together[:1], dream(net, "4", (1, 3, 16, 16), num_steps=5, jitter=2))
    assert not torch.equal(start_of(net, SHAPE, seed=1), start_of(net, SHAPE, seed=2))


def test_few_pictures_go_through_the_net_at_once_and_become_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, options = make_net().double(), {"num_steps": 4, "jitter": 2, "num_octaves": 2}
    together = dream(net, "4", (5, 3, 16, 16), **options)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 2 * 16 * 16)
    assert torch.allclose(dream(net, "4", (5, 3, 16, 16), **options), together, atol=1e-12)
    assert sizes == [2] * 16 + [1] * 8


def test_half_precision_is_dreamt_in_float32() -> None:
    found = dream(make_net().bfloat16(), "4", SHAPE, num_steps=3)
    assert found.dtype == torch.float32
    assert not torch.equal(found, start_of(make_net(), SHAPE))


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dream_is_dreamt_on_cuda(options: dict[str, Any]) -> None:
    net = make_net().cuda()
    start = start_of(net, SHAPE, decorrelated=options.get("decorrelated", False))
    found = dream(net, "4", SHAPE, num_steps=15, **options)
    objective = options.get("objective", "l2")
    with torch.no_grad(), responses_to(net.eval(), ["4"], objective) as responses:
        assert (responses(found)["4"] > responses(start)["4"]).all()
    assert found.device == start.device == next(net.parameters()).device
