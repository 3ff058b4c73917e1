"""Dead and saturated layers are named, in every net whose activations are modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from touchstone.callbacks.parts.measures import verdicts
from touchstone.callbacks.parts.measures.activations import Activations
from touchstone.nets import CifarResNet, PreActResNet, ResNet2b, ThinResNet, WideResNet

from .small_fits import fit, mlp


def test_a_dead_and_a_saturated_layer_are_named(tmp_path: Path) -> None:
    dead, saturated = mlp(), mlp(nn.Tanh)
    with torch.no_grad():
        dead[1].bias -= 100
        saturated[1].weight *= 1000
    (sentence,) = [s for s in fit(tmp_path / "dead", dead, num_epochs=1)[0].verdicts if "layer" in s]
    assert sentence.startswith("layer 'net.2' is dead: 100% of its units are 0 for every sample")
    (sentence,) = [s for s in fit(tmp_path / "full", saturated, num_epochs=1)[0].verdicts if "layer" in s]
    assert sentence.startswith("layer 'net.2' is saturated: 9")
    fine, _ = fit(tmp_path / "fine", mlp(nn.Tanh), num_epochs=1)
    assert not [s for s in fine.verdicts if "layer" in s]


def test_a_unit_of_a_convolution_is_a_channel() -> None:
    net = nn.Sequential(nn.Conv2d(1, 20, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias[:19] = -100
        net[0].bias[19] = 100
    seen = Activations(net)
    net(torch.rand(2, 1, 5, 5))
    assert seen.verdicts() == {"1": verdicts.idle_layer("1", "dead", 0.95)}
    assert not net[1]._forward_hooks


def test_a_unit_of_tokens_is_a_feature() -> None:
    net = nn.Sequential(nn.Linear(4, 20), nn.ReLU())
    with torch.no_grad():
        net[0].bias[:19] = -100
        net[0].bias[19] = 100
    seen = Activations(net)
    net(torch.rand(2, 7, 4))
    assert seen.verdicts() == {"1": verdicts.idle_layer("1", "dead", 0.95)}
    assert not any(part._forward_hooks for part in net)


def test_looking_changes_nothing_where_weights_are_computed() -> None:
    net = nn.Sequential(spectral_norm(nn.Linear(4, 3)), nn.ReLU()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Activations(net).verdicts()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Twice(nn.Module):
    """One module of ReLU called twice, the second time on what is below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(16, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(-self.relu(self.linear(x.flatten(1))) - 1)


class Second(nn.ReLU):
    """Dead on what is below 0."""


def test_the_worst_call_of_a_module_in_its_first_forward_counts() -> None:
    seen = Activations(net := Twice())
    net(torch.rand(8, 1, 4, 4))
    assert seen.verdicts() == {"relu": verdicts.idle_layer("relu", "dead", 1.0)}
    net.linear.weight.data *= 0
    net.linear.bias.data -= 10
    seen = Activations(net := nn.Sequential(Second(), net))
    net(torch.rand(8, 1, 4, 4))
    net(-torch.rand(8, 1, 4, 4))  # a later forward, of an attack perhaps
    assert seen.verdicts().keys() == {"1.relu"}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("net", "num_blocks"),
    [(ThinResNet(8), 3), (CifarResNet(18), 8), (PreActResNet(18), 8), (WideResNet(10, 2), 3), (ResNet2b(), 2)],
)
def test_every_block_of_the_residual_nets_is_seen(net: nn.Module, num_blocks: int) -> None:
    """Each has one module for its activations, and so has what stands before and behind the blocks."""
    seen = Activations(net)
    net(torch.rand(2, 3, 32, 32))
    assert len(seen._shares) == num_blocks + 1
    assert seen.has_seen


def test_a_net_whose_layers_cannot_be_seen_is_said_to_be_one(tmp_path: Path) -> None:
    fit(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 4)))
    lines = next(tmp_path.rglob("health.txt")).read_text().splitlines()
    assert lines[0] == "nothing found"
    assert lines[1].startswith("no layer was looked at")


def test_a_net_that_was_compiled_before_anyone_looked_is_said_to_show_nothing(tmp_path: Path) -> None:
    net = torch.compile(mlp().eval(), backend="eager")
    with torch.no_grad():
        net(torch.rand(40, 1, 4, 4))  # as the sanity check of a trainer does
    fit(tmp_path, net, num_epochs=1)
    lines = next(tmp_path.rglob("health.txt")).read_text().splitlines()
    assert lines[-1].startswith("no layer was looked at")
    assert "compiled" in lines[-1]
