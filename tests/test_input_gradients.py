"""`InputGradients`: what it draws is the gradient of the loss, and it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_a_sample_without_a_class_has_no_gradient_and_a_broken_one_no_number(tmp_path: Path) -> None:
    class Breaking(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.where(torch.arange(len(x)) == 2, torch.nan, 1.0)[:, None]

    drawn: list[Tensor] = []

    class Watching(InputGradients):
        def conclude(self, *rest: Any) -> None:
            drawn.extend(gradient for _, gradient, _, _ in self._shown)
            super().conclude(*rest)

    x, y = torch.rand(3, 1, 6, 6), torch.tensor([1, -100, 2])
    module = Breaking(small_net(7))
    module.validation_step = lambda *_: None  # type: ignore[method-assign]
    trainer(tmp_path, Watching()).validate(module, DataLoader(TensorDataset(x, y), 3), verbose=False)
    assert drawn[0][0].abs().max() > 0
    assert drawn[0][1].abs().max() == 0
    assert drawn[0][2].isnan().all()


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
