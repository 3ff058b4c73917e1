"""What recipes ask of optimizer, schedule, labels and averages is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18
from torchvision.transforms import v2

import train
from touchstone.callbacks import FindLearningRate
from touchstone.datamodules import ImagesDataModule, ImageTree
from touchstone.lightning_modules import Classifier, weight_decay_groups

from .image_files import write_tree


def test_normalizations_and_biases_are_spared_by_type_and_all_else_is_decayed() -> None:
    net = resnet18()
    decayed, spared = weight_decay_groups(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    of_spared = {names[id(parameter)] for parameter in spared["params"]}
    assert {"layer2.0.downsample.1.weight", "layer2.0.downsample.1.bias", "bn1.weight", "fc.bias"} <= of_spared
    # 20 of BatchNorm with two parameters each, and the bias of the last layer.
    assert len(of_spared) == 41
    assert spared["weight_decay"] == 0
    assert {names[id(parameter)] for parameter in decayed["params"]} == set(names.values()) - of_spared
    assert "weight_decay" not in decayed


def test_every_kind_of_normalization_is_known_and_nothing_counts_twice() -> None:
    kinds = nn.Sequential(
        nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4, affine=True), nn.BatchNorm1d(4), nn.RMSNorm(4)
    )
    (spared,) = weight_decay_groups(kinds)
    assert len(spared["params"]) == 9
    shared, frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
    decayed, spared = weight_decay_groups(nn.Sequential(shared, frozen, shared, nn.GRU(2, 2)))
    assert len(decayed["params"]) == 3
    assert len(spared["params"]) == 3


def data(num: int = 32, num_classes: int = 3) -> DataLoader:
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.rand(num, 4), torch.arange(num) % num_classes), batch_size=8)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def fitted(module: pl.LightningModule, tmp_path: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=tmp_path, logger=False, enable_checkpointing=False, accelerator="cpu", devices=1,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
        **{"max_epochs": 2, **options},
    )  # fmt: skip
    loader = data()
    trainer.fit(module, loader, loader)
    return trainer


def test_weights_alone_decay(tmp_path: Path) -> None:
    """With a loss without gradient, decay is all that changes: by (1 - lr * decay) at each of 8 steps."""

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * 0

    module = Classifier(Still(), lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.5), decay="weights")
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    fitted(module, tmp_path)
    for name, value in module.named_parameters():
        factor = 0.95**8 if name in ("net.net.0.weight", "net.net.3.weight") else 1.0
        assert torch.allclose(value, before[name] * factor, rtol=1e-5), name


@pytest.mark.parametrize(("schedule", "num_steps"), [("step", 8), ("epoch", 2)])
def test_the_schedule_steps_as_often_as_told(tmp_path: Path, schedule: Any, num_steps: int) -> None:
    module = Classifier(
        net(),
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda optimizer: ExponentialLR(optimizer, 0.9),
        schedule=schedule,
    )
    trainer = fitted(module, tmp_path)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([0.1 * 0.9**num_steps])
    with pytest.raises(ValueError, match="must be one of 'epoch', 'step', got 'batch'"):
        Classifier(net(), schedule="batch")  # type: ignore[arg-type]


def test_a_schedule_that_waits_for_a_figure_is_told_it(tmp_path: Path) -> None:
    """A loss that stays is no better than at first in three of four epochs."""

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * 0

    module = Classifier(
        Still(),
        lambda groups: torch.optim.SGD(groups, lr=0.8),
        lambda optimizer: ReduceLROnPlateau(optimizer, "val/loss", factor=0.5, patience=0),
    )
    trainer = fitted(module, tmp_path, max_epochs=4)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1)


def test_the_loss_of_mixed_labels_is_the_mixture_of_losses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Classifier(net()).eval()
    x, y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    other, share = y.roll(1), 0.3
    mixed = (1 - share) * nn.functional.one_hot(y, 3) + share * nn.functional.one_hot(other, 3)
    logits = module(x)
    each = [-logits.log_softmax(1).gather(1, labels[:, None]).mean() for labels in (y, other)]
    assert torch.allclose(module.train_loss(logits, mixed, x=x), (1 - share) * each[0] + share * each[1])


@pytest.mark.parametrize("mix", [v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)])
def test_a_run_learns_from_mixed_batches(tmp_path: Path, mix: nn.Module) -> None:
    source = ImageTree(str(write_tree(tmp_path / "tree")))
    images = ImagesDataModule(source, batch_size=10, mix=mix, cache_folder=str(tmp_path / "cache"))
    module = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)))
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        devices=1, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, images)
    assert 0 <= float(trainer.callback_metrics["train/accuracy"]) <= 1
    assert np.isfinite(float(trainer.callback_metrics["train/loss"]))


class Weights(pl.Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.kept.append(module.net[0].weight.detach().clone())


def test_averaged_weights_are_the_exponential_mean_of_the_steps(tmp_path: Path) -> None:
    weights, module = Weights(), Classifier(net(), lambda p: torch.optim.SGD(p, lr=0.5))
    first = module.net[0].weight.detach().clone()  # type: ignore[index, union-attr]
    fitted(module, tmp_path, weights, EMAWeightAveraging(decay=0.7))
    expected = weights.kept[0]  # the average begins with the weights of the first step
    for value in weights.kept[1:]:
        expected = 0.7 * expected + 0.3 * value
    assert not torch.allclose(first, expected, atol=1e-3)
    assert torch.allclose(module.net[0].weight, expected, atol=1e-5)  # type: ignore[index, union-attr]


def test_stochastic_weight_averaging_ends_at_its_learning_rate_with_the_mean_of_the_epochs(tmp_path: Path) -> None:
    """Of the weights at the start and after each of the first three of four epochs, as Lightning takes them."""
    weights, module = Weights(), Classifier(net(), lambda p: torch.optim.SGD(p, lr=0.5))
    first = module.net[0].weight.detach().clone()  # type: ignore[index, union-attr]
    averaging = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1, annealing_epochs=1)
    trainer = fitted(module, tmp_path, weights, averaging, max_epochs=4)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1)
    expected = (first + weights.kept[3] + weights.kept[7] + weights.kept[11]) / 4
    torch.testing.assert_close(module.net[0].weight.detach(), expected)  # type: ignore[index, union-attr]
    # BatchNorm has seen the training images once more, with the averaged weights.
    assert int(module.net[1].num_batches_tracked) == 4  # type: ignore[index, union-attr, arg-type]


def test_a_command_suggests_a_learning_rate_and_trains_nothing(
    root: Path, here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning.pytorch")
    finder = ["--trainer.callbacks+=touchstone.callbacks.FindLearningRate", "--trainer.callbacks.num_training_steps=60"]
    config = ["--config", str(root / "configs/digits.yaml"), "--model.net.width=4"]
    assert train.main(["fit", *config, *finder]) == 0
    said = capsys.readouterr()
    found = re.search(r"falls fastest at a learning rate of ([\d.e-]+)", said.out + said.err + caplog.text)
    assert found
    assert 1e-5 < float(found[1]) < 1
    assert len(list(here.rglob("figures/learning_rate.png"))) == 1
    assert not list(here.rglob("*.ckpt"))


def test_the_suggestion_is_where_the_loss_falls_fastest_over_the_logarithm_of_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that falls by two in the decade from 1e-3 on, and by a hundredth in every other."""
    module = Classifier(net(), lambda p: torch.optim.SGD(p, lr=0.5))

    def loss(batch: Any) -> Tensor:
        decades = float(np.log10(module.trainer.optimizers[0].param_groups[0]["lr"]))
        return 0 * module(batch[0]).sum() + 5.0 - 2 * min(max(decades + 3, 0.0), 1.0) - 0.01 * decades

    monkeypatch.setattr(module, "training_step", loss)
    finder = FindLearningRate()
    fitted(module, tmp_path, finder, max_epochs=1)
    assert finder.suggestion is not None
    assert 1e-3 < finder.suggestion < 2e-2


@pytest.mark.parametrize(("num_batches", "num_seen"), [(1, 30), (2, 30), (3, 15)])
def test_a_loss_that_stays_is_a_level_line_and_all_steps_are_made(
    num_batches: int, num_seen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the epochs of the run have fewer steps. Lightning sees none of the last, shorter step of an epoch."""
    module = Classifier(net(), lambda p: torch.optim.SGD(p, lr=0.5))
    monkeypatch.setattr(module, "training_step", lambda batch: 0 * module(batch[0]).sum() + 2.0)
    finder = FindLearningRate(num_training_steps=30)
    fitted(module, tmp_path, finder, max_epochs=1, accumulate_grad_batches=num_batches)
    assert finder.optimal_lr is not None
    assert finder.optimal_lr.results["loss"] == pytest.approx(num_seen * [2.0])


def test_as_few_steps_as_may_be_given_suffice_for_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Classifier(net(), lambda p: torch.optim.SGD(p, lr=0.5))
    monkeypatch.setattr(
        module, "training_step", lambda batch: 0 * module(batch[0]).sum() + 5 - 0.1 * module.global_step
    )
    finder = FindLearningRate(num_training_steps=13)
    fitted(module, tmp_path, finder, max_epochs=1)
    assert finder.suggestion is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_training_steps": 12}, r"num_training_steps=...\) must be >= 13, got 12"),
        ({"early_stop_threshold": 0.0}, r"early_stop_threshold=...\) must be > 0, or None for never, got 0"),
    ],
)
def test_a_range_test_outside_its_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FindLearningRate(**options)
