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
        (nn.Linear(2, 2).state_dict(), "must hold the weights features.0.weight, .* of SmallCNN, got weight, bias"),
        (SmallCNN(width=5).state_dict(), "does not fit SmallCNN: .*size mismatch for features.0.weight"),
        ([1, 2], "must hold the weights .*, got none"),
        (SmallCNN(width=4), "is no file of weights alone: Weights only load failed"),
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path: Path, stored: Any, message: str) -> None:
    path = str(tmp_path / "net.pt")
    torch.save(stored, path)
    with pytest.raises(ValueError, match=rf"(?s)Trained\(checkpoint='{path}'\) {message}"):
        Trained(SmallCNN(width=4), path)


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").touch()
    with pytest.raises(ValueError, match="is no file of weights alone"):
        Trained(SmallCNN(width=4), str(tmp_path / "net.pt"))
    with pytest.raises(FileNotFoundError, match="elsewhere.pt"):
        Trained(SmallCNN(width=4), str(tmp_path / "elsewhere.pt"))
