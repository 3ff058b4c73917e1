"""`Trained`: a net with weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN, Trained

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "stored", [lambda net: net.state_dict(), lambda net: {"state_dict": Classifier(net).state_dict()}]
)
def test_it_computes_what_the_stored_net_does(tmp_path: Path, stored: Any) -> None:
    net = SmallCNN(width=4)
    torch.save(stored(net), tmp_path / "net.pt")
    assert torch.equal(Trained(SmallCNN(width=4), str(tmp_path / "net.pt"))(X), net(X))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (nn.Linear(2, 2).state_dict(), "does not fit SmallCNN: missing features.0.weight, .*; unexpected weight, bias"),
        (SmallCNN(width=5).state_dict(), "does not fit SmallCNN: misshapen features.0.weight"),
        ([1, 2], "must hold a state dict"),
        ({"state_dict": [1]}, "must hold a state dict"),
        ({"features.0.weight": 1}, "must hold a state dict"),
        (SmallCNN(width=4), "holds more than weights, .*SmallCNN, which"),
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path: Path, stored: Any, message: str) -> None:
    path = str(tmp_path / "net.pt")
    torch.save(stored, path)
    with pytest.raises(ValueError, match=rf"(?s)Trained\(checkpoint='{path}'\) {message}"):
        Trained(SmallCNN(width=4), path)


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").touch()
    with pytest.raises(ValueError, match="is no checkpoint but an empty file"):
        Trained(SmallCNN(width=4), str(tmp_path / "net.pt"))
    with pytest.raises(FileNotFoundError, match="elsewhere.pt"):
        Trained(SmallCNN(width=4), str(tmp_path / "elsewhere.pt"))


def stack(depth: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (stack(3).state_dict(), "does not fit Sequential: unexpected 2.weight, 2.bias"),
        (stack(1).state_dict(), "does not fit Sequential: missing 1.weight, 1.bias"),
        (Classifier(stack(3)).state_dict(), "does not fit Sequential, behind 'net.': unexpected 2.weight, 2.bias"),
        (nn.ModuleDict({"teacher": stack(2), "net": stack(2)}).state_dict(), "behind 'teacher.' and behind 'net.' fit"),
    ],
)
def test_a_file_that_holds_another_net_or_two_is_refused(tmp_path: Path, stored: Any, message: str) -> None:
    torch.save(stored, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message):
        Trained(stack(2), str(tmp_path / "net.pt"))


def test_a_module_of_lightning_may_hold_more_than_the_net(tmp_path: Path) -> None:
    module = nn.ModuleDict({"teacher": stack(2), "net": stack(2), "head": nn.Linear(4, 9)})
    stored = {"state_dict": module.state_dict(), "pytorch-lightning_version": "2.5.0"}
    torch.save(stored, tmp_path / "net.ckpt")
    net, x = Trained(stack(2), str(tmp_path / "net.ckpt"), prefix="net."), torch.rand(2, 4)
    assert torch.equal(net(x), module["net"](x))
    with pytest.raises(ValueError, match="of one net"):
        Trained(stack(2), str(tmp_path / "net.ckpt"))
