"""`InputGradients`: what it draws is the gradient of the loss, and it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import InputGradients, input_gradients
from touchstone.lightning_modules import Classifier

from .lightning_programs import events, train_loader, trainer, val_loader, weights
from .oracles import LinearModel, small_net


def test_the_gradient_is_that_of_a_linear_model_in_closed_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cross-entropy: the weights times the softmax less the true class."""
    net = LinearModel(num_features=27).float()
    x, y = torch.rand(12, 3, 3, 3), torch.arange(12) % 3
    drawn: list[Tensor] = []
    picture = input_gradients._picture

    def watching(*parts: Tensor) -> object:
        drawn.extend(parts[:4])
        return picture(*parts)  # type: ignore[arg-type]

    monkeypatch.setattr(input_gradients, "_picture", watching)
    run = trainer(tmp_path, InputGradients(num_images=5))
    run.validate(Classifier(net), DataLoader(TensorDataset(x, y), 3), verbose=False)
    torch.testing.assert_close(drawn[0], x[:5])
    off = net(x[:5]).softmax(1) - torch.nn.functional.one_hot(y[:5], 3)
    torch.testing.assert_close(drawn[1].flatten(1), off @ net.linear.weight)
    assert (tmp_path / "run/version_0/figures/input_gradients.png").is_file()
    assert "input_gradients" in events(tmp_path).Tags()["images"]


def test_it_changes_no_weight_of_a_training(tmp_path: Path) -> None:
    trained = []
    for callbacks in ([], [InputGradients()]):
        torch.manual_seed(0)
        module = Classifier(small_net(7))
        trainer(tmp_path, *callbacks, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
        trained.append(weights(module))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def test_what_is_no_image_or_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"InputGradients\(num_images=...\) must be >= 1, got 0"):
        InputGradients(num_images=0)
    loader = DataLoader(TensorDataset(torch.rand(4, 12), torch.zeros(4, dtype=torch.long)), 4)
    run = trainer(tmp_path, InputGradients())
    with pytest.raises(ValueError, match=r"InputGradients draws images \(N, 1 or 3, H, W\), got \(4, 12\)"):
        run.validate(Classifier(LinearModel().float()), loader, verbose=False)
