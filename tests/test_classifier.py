"""`Classifier`: what it minimises and what it logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.datamodules import DigitsDataModule, ImagesDataModule, ImageTree, PicturesDataModule
from touchstone.lightning_modules import PGDAT, Classifier, Strategy
from touchstone.nets import SmallCNN

from .lightning_programs import events, samples, train_loader, trainer, val_loader
from .oracles import small_net

PGD_3 = PGD(threat=Linf(eps=0.1), num_steps=3)


def test_figures_are_means_over_every_sample(tmp_path: Path) -> None:
    module = Classifier(small_net(7))
    run = trainer(tmp_path)
    run.validate(module, val_loader(10), verbose=False)  # batches of 10, 10 and 3
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    logits = module.eval()(x)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert float(run.callback_metrics["val/accuracy"]) == pytest.approx((logits.argmax(1) == y).float().mean().item())


class NaNOfTheFirst(nn.Module):
    """No number for a class of the first sample that it ever sees."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.is_first = small_net(7), True

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x).clone()
        if self.is_first:
            logits[0, 2] = torch.nan
        self.is_first = False
        return logits


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_nothing_is_averaged_over_logits_that_are_nan(tmp_path: Path, stage: str) -> None:
    module, run = Classifier(NaNOfTheFirst()), trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    if stage == "train":
        run.fit(module, train_loader(), val_loader())
    else:
        (run.validate if stage == "val" else run.test)(module, val_loader(), verbose=False)
    for name in ("loss", "accuracy"):
        assert torch.isnan(run.callback_metrics[f"{stage}/{name}"]), name


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_module_can_be_evaluated_and_then_trained(tmp_path: Path, stage: str) -> None:
    module = Classifier(small_net(7))
    getattr(trainer(tmp_path), stage)(module, val_loader(), verbose=False)
    trainer(tmp_path).fit(module, train_loader(), val_loader())
    getattr(trainer(tmp_path), stage)(module, val_loader(), verbose=False)


class WithLogits(nn.Module):
    """Returns its logits as an attribute, as the nets of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net(7)

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=None, logits=self.net(x))


def test_a_net_whose_output_has_logits_is_trained_and_attacked(tmp_path: Path) -> None:
    module = Classifier(WithLogits(), strategy=PGDAT(PGD_3))
    run = trainer(tmp_path, RobustAccuracy({"pgd": PGD_3}), GradientNorm(), max_epochs=1)
    run.fit(module, train_loader(), val_loader())
    assert torch.cat(run.predict(module, val_loader())).shape == (23, 4)  # type: ignore[arg-type]


def test_every_sample_of_the_digits_is_in_one_set_and_classes_are_balanced() -> None:
    data = DigitsDataModule()
    data.setup("fit")
    sets = [dataset.tensors for dataset in (data.train, data.val, data.test)]
    assert [len(y) for _, y in sets] == [1197, 300, 300]
    pixels, classes = load_digits(return_X_y=True)
    expected = sorted((*image, label) for image, label in zip((pixels / 16).tolist(), classes.tolist(), strict=True))
    found = [(*image, label) for x, y in sets for image, label in zip(x.flatten(1).tolist(), y.tolist(), strict=True)]
    assert sorted(found) == expected
    train, val, test = (
        torch.cat([x for x, _ in loader])
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    )
    assert sorted(train.flatten(1).tolist()) == sorted(data.train.tensors[0].flatten(1).tolist())
    assert torch.equal(val, data.val.tensors[0])
    assert torch.equal(test, data.test.tensors[0])
    for x, y in sets:
        assert x.shape[1:] == (1, 8, 8)
        assert x.dtype == torch.float32
        assert x.min() == 0
        assert x.max() == 1
        share = torch.bincount(y).float() / len(y)
        assert (share - 0.1).abs().max() < 0.01
    again = DigitsDataModule()
    again.setup("test")
    assert torch.equal(again.test.tensors[0], data.test.tensors[0])


def test_it_learns_the_digits(tmp_path: Path) -> None:
    pl.seed_everything(0)
    module = Classifier(SmallCNN(width=16), lambda p: torch.optim.Adam(p, lr=3e-3))
    run = trainer(tmp_path, max_epochs=5, log_every_n_steps=10)
    run.fit(module, datamodule=DigitsDataModule())
    assert float(run.callback_metrics["val/accuracy"]) > 0.93
    losses = [event.value for event in events(tmp_path).Scalars("train/loss")]
    assert losses[-1] < 0.3 * losses[0]


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing=...\) must be in \[0, 1\), got 1"):
        Classifier(small_net(), label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"SmallCNN\(image_size=...\) must be even"):
        SmallCNN(image_size=7)
    with pytest.raises(ValueError, match=r"DigitsDataModule\(batch_size=...\) must be >= 1, got 0"):
        DigitsDataModule(batch_size=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DigitsDataModule(split_seed=-1), r"DigitsDataModule\(split_seed=...\) must be >= 0, got -1"),
        (lambda: DigitsDataModule(num_workers=-1), r"DigitsDataModule\(num_workers=...\) must be >= 0, got -1"),
        (lambda: ImagesDataModule(ImageTree("."), num_workers=-1), r"Images.*\(num_workers=...\) must be >= 0, got -1"),
        (lambda: PicturesDataModule(num_workers=-1), r"PicturesDataModule\(num_workers=...\) must be >= 0, got -1"),
    ],
)
def test_a_negative_seed_or_number_of_workers_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_training_batch_with_labels_outside_the_classes_is_named(tmp_path: Path) -> None:
    x = torch.rand(8, 1, 6, 6)
    loader = DataLoader(TensorDataset(x, torch.full((8,), 4)), 8)
    with pytest.raises(ValueError, match=r"labels must be classes of the model, 0 to 3; sample 0 has the label 4"):
        trainer(tmp_path).fit(Classifier(small_net()), loader, val_loader())


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda logits: logits[:, 0], r"\(8,\)"),
        (lambda logits: logits[:, None], r"\(8, 1, 4\)"),
        (lambda logits: logits[..., None, None].expand(-1, -1, 6, 6), r"\(8, 4, 6, 6\)"),
    ],
)
def test_an_output_that_is_no_row_of_logits_for_each_image_is_named(tmp_path: Path, function: Any, shape: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_net()

        def forward(self, x: Tensor) -> Tensor:
            return function(self.inner(x))

    with pytest.raises(ValueError, match=rf"the model must return logits of shape \(8, classes\), got {shape}"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(Classifier(Net()), train_loader(8), val_loader())


def figures_of_a_fit(folder: Path, x: Tensor, y: Tensor, precision: Any, strategy: Any) -> dict[str, float]:
    """What a fit and a test on these samples log; they can be predicted too."""
    torch.manual_seed(0)
    module, loader = Classifier(small_net(7), strategy=strategy), DataLoader(TensorDataset(x, y), 8)
    run = trainer(folder, RobustAccuracy({"pgd": PGD_3}, num_images=0), max_epochs=1, precision=precision)
    run.fit(module, loader, loader)
    figures = dict(run.callback_metrics)
    run.test(module, loader, verbose=False)
    figures |= run.callback_metrics
    run.predict(module, loader)
    return {name: float(value) for name, value in figures.items()}


@pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these
@pytest.mark.parametrize(
    ("precision", "strategy"), [("32-true", None), ("32-true", PGDAT(PGD_3)), ("64-true", None), ("bf16-mixed", None)]
)
def test_images_in_float64_and_labels_of_any_width_are_learned_as_others(
    tmp_path: Path, precision: str, strategy: Any
) -> None:
    x, y = samples(24).tensors
    plain = figures_of_a_fit(tmp_path / "plain", x, y, precision, strategy)
    assert {"train/loss", "val/loss", "val/robust_accuracy/pgd", "test/loss"} <= plain.keys()
    turned = x.transpose(2, 3).double().contiguous().transpose(2, 3)
    for dtype in (torch.int32, torch.int8):
        again = figures_of_a_fit(tmp_path / str(dtype), turned, y.to(dtype), precision, strategy)
        assert again == pytest.approx(plain, rel=1e-4)


def test_images_of_whole_numbers_are_told_to_be_divided(tmp_path: Path) -> None:
    x, y = samples(8).tensors
    loader = DataLoader(TensorDataset((x * 255).byte(), y), 8)
    with pytest.raises(ValueError, match=r"images must be floating point, got torch.uint8; .*`x.float\(\) / 255`"):
        trainer(tmp_path).fit(Classifier(small_net()), loader, loader)


@pytest.mark.parametrize("num_sanity_val_steps", [0, 2])
@pytest.mark.parametrize("strategy", [None, PGDAT(PGD_3)])
def test_images_of_a_size_that_the_net_does_not_take_are_named_with_one_that_it_takes(
    tmp_path: Path, strategy: Any, num_sanity_val_steps: int
) -> None:
    module = Classifier(SmallCNN(image_size=16), strategy=strategy)
    message = (
        r"SmallCNN does not take pictures of 6 x 6 pixels, but of 16 x 16: "
        r"make it with image_size=6, or bring them to it, as `size` of ImageTree"
    )
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, num_sanity_val_steps=num_sanity_val_steps).fit(module, train_loader(), val_loader())


def test_a_size_that_the_net_does_not_take_is_named_for_images_in_float64_too(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.rand(8, 1, 6, 6, dtype=torch.float64), torch.zeros(8).long()), 8)
    with pytest.raises(ValueError, match="SmallCNN does not take pictures of 6 x 6 pixels, but of 16 x 16"):
        trainer(tmp_path).validate(Classifier(SmallCNN(image_size=16)), loader, verbose=False)


def test_an_error_that_another_size_does_not_mend_stays_as_it_is(tmp_path: Path) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 4))
    loader = DataLoader(TensorDataset(torch.rand(1, 1, 6, 6), torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(ValueError, match="^Expected more than 1 value per channel when training"):
        trainer(tmp_path).fit(Classifier(net), loader, val_loader())


@pytest.mark.parametrize("class_weights", [None, [1, 2, 3, 4]])
def test_shares_of_more_or_fewer_classes_than_the_net_has_are_named(tmp_path: Path, class_weights: Any) -> None:
    """As MixUp makes them that was told another number."""
    loader = DataLoader(TensorDataset(torch.rand(8, 1, 6, 6), torch.full((8, 3), 1 / 3)), 8)
    module = Classifier(small_net(7), class_weights=class_weights)
    message = (
        r"shares of classes must be `\(N, 4\)`, one for each class of the model, got the shape \(8, 3\): "
        "MixUp and CutMix take num_classes=4"
    )
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(module, loader, val_loader())


def test_the_net_can_be_trained_from_a_partly_frozen_state(tmp_path: Path) -> None:
    net = small_net(7)
    net[0].requires_grad_(False)
    before = net[0].weight.detach().clone()
    trainer(tmp_path, max_epochs=1).fit(Classifier(net), train_loader(), val_loader())
    assert torch.equal(net[0].weight, before)


def test_several_validation_loaders_are_measured_one_by_one(tmp_path: Path) -> None:
    module, loaders = Classifier(small_net(7)), [val_loader(), DataLoader(samples(7, seed=5), 4)]
    run = trainer(tmp_path)
    run.validate(module, loaders, verbose=False)
    for number, loader in enumerate(loaders):
        x, y = loader.dataset.tensors  # type: ignore[attr-defined]
        with torch.no_grad():
            expected = float((module.eval()(x).argmax(1) == y).float().mean())
        assert float(run.callback_metrics[f"val/accuracy/dataloader_idx_{number}"]) == pytest.approx(expected)


def test_several_validation_loaders_need_no_sanity_check(tmp_path: Path) -> None:
    """Else the metrics of the second begin after Lightning has listed those of the module."""
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run.fit(Classifier(small_net(7)), train_loader(), [val_loader(), val_loader()])
    for name in ("loss", "accuracy"):
        first, second = (run.callback_metrics[f"val/{name}/dataloader_idx_{number}"] for number in (0, 1))
        assert first == second


def test_a_batch_that_is_no_pair_says_so(tmp_path: Path) -> None:
    x, y = samples(4).tensors
    loader = DataLoader([{"image": a, "label": b} for a, b in zip(x, y, strict=True)], 2)
    with pytest.raises(ValueError, match=r"must be \(images, labels\), got a dict with the keys \['image', 'label'\]"):
        trainer(tmp_path).validate(Classifier(small_net(7)), loader, verbose=False)


def test_class_weights_are_those_of_a_weighted_mean(tmp_path: Path) -> None:
    """A class of weight 0 teaches nothing; the rest counts by its weights."""
    module = Classifier(small_net(7), class_weights=[0, 1, 2, 5])
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    class Watching(Strategy):
        def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Any, rng: Any) -> Any:
            learned = super().learn(model, x, y, criterion, rng)
            seen.append((learned.loss.detach(), learned.logits.detach(), y))
            return learned

    module.strategy = Watching()
    trainer(tmp_path, max_epochs=1).fit(module, train_loader(), val_loader())
    for loss, logits, y in seen:
        weights = torch.tensor([0.0, 1, 2, 5])[y]
        each = -logits.log_softmax(1)[torch.arange(len(y)), y]
        torch.testing.assert_close(loss, (weights * each).sum() / weights.sum())
    assert not any("class_weights" in key for key in module.state_dict())


def test_weights_for_classes_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    module = Classifier(small_net(7), class_weights=[1.0] * 5)
    with pytest.raises(ValueError, match=r"class_weights=...\) must be one for each of the 4 classes, got 5"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    for weights in ([1.0, -1.0], [], [float("nan")]):
        with pytest.raises(ValueError, match=r"Classifier\(class_weights=...\) must be numbers >= 0, got"):
            Classifier(small_net(7), class_weights=weights)


def test_a_net_with_nothing_to_train_is_refused(tmp_path: Path) -> None:
    module = Classifier(small_net(7).requires_grad_(False))
    with pytest.raises(ValueError, match="must have a parameter to train: Sequential has none, or all of its"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
