"""Weights are read from models that were wrapped or compiled before they were saved."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from touchstone.nets.public_checkpoint import PublicCheckpoint

from .public_models import MEAN, STD, behind, small


@pytest.mark.parametrize("around", ["", "_orig_mod.", "module."])
def test_an_averaged_model_of_torch_is_read(tmp_path: Path, around: str) -> None:
    source = torch.optim.swa_utils.AveragedModel(nn.DataParallel(nn.Linear(4, 3)))
    torch.save(behind(around, source.state_dict()), tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.weight, source.module.module.weight)


@pytest.mark.parametrize("around", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_normalization_is_found_in_a_model_that_was_compiled(tmp_path: Path, around: str) -> None:
    weights = behind("model.", small())
    stored = {**weights, **behind("attacker.", weights), "normalizer.new_mean": MEAN, "normalizer.new_std": STD}
    torch.save({"model": behind(around, stored)}, tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.weight, weights["model.weight"])
    assert torch.equal(net.normalize.mean.flatten(), MEAN)


@pytest.mark.parametrize("name", ["module", "_orig_mod"])
def test_a_net_may_have_a_layer_of_the_name_that_wrappers_give(tmp_path: Path, name: str) -> None:
    net, source = (nn.Sequential(OrderedDict({name: nn.Linear(4, 3)})) for _ in range(2))
    for around in ("", "module.", "_orig_mod."):
        torch.save(behind(around, source.state_dict()), tmp_path / "a.pt")
        read = PublicCheckpoint(net, str(tmp_path / "a.pt"))
        assert torch.equal(read.net.state_dict()[f"{name}.weight"], source.state_dict()[f"{name}.weight"])
