"""Classes of few images: drawn more often, and measured one by one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import nn

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import ExactResume, PerClass, RobustAccuracy
from touchstone.callbacks.parts.passes.recalls import recalls
from touchstone.datamodules import ImagesDataModule, NpzImages
from touchstone.lightning_modules import AWP, MART, PGDAT, TRADES, Classifier, Mixed, Strategy
from touchstone.lightning_modules.parts.classifier_loss import ClassifierLoss

from .lightning_programs import Diverged, train_loader, trainer, val_loader, weights
from .oracles import small_net

COUNTS = (120, 30, 10)


@pytest.fixture
def source(tmp_path: Path) -> NpzImages:
    """Three classes of very unlike size, told apart by their brightness, with an image's number in a corner."""
    y = np.repeat(np.arange(3), COUNTS)
    x = np.broadcast_to((40 * y + 60)[:, None, None, None], (len(y), 8, 8, 1)).astype(np.uint8).copy()
    x[:, 0, 0, 0] = np.arange(len(y))
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[::5], y_test=y[::5])
    return NpzImages(train=str(tmp_path / "data.npz"), class_names=["big", "small", "tiny"])


def data(source: NpzImages, tmp_path: Path, **options: Any) -> ImagesDataModule:
    return ImagesDataModule(source, batch_size=16, val_share=0.2, cache_folder=str(tmp_path / "cache"), **options)


def drawn(images: ImagesDataModule, num_epochs: int = 20) -> torch.Tensor:
    images.setup("fit")
    labels = torch.cat([y for _ in range(num_epochs) for _, y in images.train_dataloader()])
    return labels.bincount(minlength=3) / len(labels)


@pytest.mark.parametrize(("shares", "expected"), [("equal", (1, 1, 1)), ([1, 0, 3], (1, 0, 3)), (None, COUNTS)])
def test_classes_are_drawn_in_the_shares_that_are_asked_for(
    source: NpzImages, tmp_path: Path, shares: Any, expected: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    found = drawn(data(source, tmp_path, class_shares=shares))
    wanted = torch.tensor(expected, dtype=torch.float) / sum(expected)
    assert torch.allclose(found, wanted, atol=0.035)  # 2,560 draws: four standard deviations
    if shares is not None:
        assert (found[wanted == 0] == 0).all()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([1, 1], r"class_shares=...\) must be one for each of the 3 classes, got 2"),
        ([1, 1, 1, 1], r"class_shares=...\) must be one for each of the 3 classes, got 4"),
        ([1, -1, 1], r"class_shares=...\) must be numbers >= 0, and one of them above, got \[1.0, -1.0, 1.0\]"),
        ([0, 0, 0], r"class_shares=...\) must be numbers >= 0, and one of them above"),
    ],
)
def test_shares_that_fit_no_class_are_refused(source: NpzImages, tmp_path: Path, shares: Any, message: str) -> None:
    images = data(source, tmp_path, class_shares=shares)
    images.setup("fit")
    with pytest.raises(ValueError, match=message):
        images.train_dataloader()


def test_a_share_of_a_class_without_images_is_refused(source: NpzImages, tmp_path: Path) -> None:
    images = data(source, tmp_path, class_shares=[1, 1, 1])
    images.setup("fit")
    images.train.rows = images.train.rows[images.train.y[images.train.rows] != 1]
    with pytest.raises(ValueError, match="class_shares=...\\): 'small' has no training images"):
        images.train_dataloader()


def test_a_run_of_drawn_classes_that_is_stopped_goes_on_bit_for_bit(source: NpzImages, tmp_path: Path) -> None:
    """In the middle of an epoch: the draws are those of the run that was never stopped."""
    seen: list[list[int]] = []

    class Watching(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            seen.append((batch[0][:, 0, 0, 0] * 255).round().int().tolist())
            if trainer.global_step == 11:  # of 8 in an epoch
                trainer.save_checkpoint(tmp_path / "between.ckpt")

    def fit(checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        seen.clear()
        torch.manual_seed(0)
        module = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
        run = trainer(tmp_path, ExactResume(), Watching(), max_epochs=2, num_sanity_val_steps=0)
        run.fit(module, data(source, tmp_path, class_shares="equal"), ckpt_path=checkpoint)
        return weights(module)

    whole, seen_in_whole = fit(), list(seen)
    resumed = fit(tmp_path / "between.ckpt")
    assert len(seen_in_whole) == 16
    assert seen == seen_in_whole[11:]
    assert seen_in_whole[:8] != seen_in_whole[8:]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator, dtype=torch.float64).requires_grad_()
    return logits, torch.tensor([0, 1, 2, 0, 0, 2, 0, 1])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weights_count_shares_of_classes_as_the_classes_themselves(label_smoothing: float) -> None:
    """One-hot labels cost what torch makes of the class numbers; halves of two classes have halves of the weights."""
    logits, y = logits_and_labels()
    weights = torch.tensor([1.0, 9, 3], dtype=torch.float64)
    loss = ClassifierLoss(label_smoothing=label_smoothing, class_weights=weights.tolist()).double()
    expected = F.cross_entropy(logits, y, weights, label_smoothing=label_smoothing)
    one_hot = F.one_hot(y, 3).double()
    torch.testing.assert_close(loss(logits, y, x=logits), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(loss(logits, one_hot, x=logits), expected, rtol=1e-9, atol=0)
    # Every sample once as each of its two classes: the same mean over twice the samples.
    twice = F.cross_entropy(logits.repeat(2, 1), torch.cat([y, y.roll(1)]), weights, label_smoothing=label_smoothing)
    halves = (one_hot + one_hot.roll(1, 0)) / 2
    torch.testing.assert_close(loss(logits, halves, x=logits), twice, rtol=1e-9, atol=0)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("one_hot", [False, True])
def test_a_batch_of_classes_without_weight_teaches_nothing(label_smoothing: float, one_hot: bool) -> None:
    """Its mean would be 0 / 0; logits that are NaN stay NaN."""
    logits, y = logits_and_labels()
    loss = ClassifierLoss(label_smoothing=label_smoothing, class_weights=[0, 0, 2]).double()
    y = y.clamp_max(1)
    labels = F.one_hot(y, 3).double() if one_hot else y
    found = loss(logits, labels, x=logits)
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.item() == 0
    assert not gradient.any()
    assert loss(logits * torch.nan, labels, x=logits).isnan()


def test_a_run_goes_on_over_batches_of_classes_without_weight(source: NpzImages, tmp_path: Path) -> None:
    """Of the 120, 30 and 10 images of three classes, the last alone counts: most batches have none of it."""
    module = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), class_weights=[0, 0, 1])
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, ImagesDataModule(source, batch_size=4, val_share=0.2, cache_folder=str(tmp_path / "cache")))
    assert run.callback_metrics["train/loss"].isfinite()
    assert all(value.isfinite().all() for value in weights(module).values())


PGD_1 = PGD(threat=Linf(eps=0.05), num_steps=1)


@pytest.mark.parametrize("strategy", [PGDAT(PGD_1), MART(PGD_1), AWP(Mixed(MART(PGD_1)))])
def test_strategies_learn_nothing_from_classes_without_weight(tmp_path: Path, strategy: Strategy) -> None:
    module = Classifier(small_net(7), partial(torch.optim.SGD, lr=0.1), class_weights=[0] * 4, strategy=strategy)
    before = [p.detach().clone() for p in module.parameters()]
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("strategy", [Mixed(TRADES(PGD_1)), Mixed(Mixed(PGDAT(PGD_1))), Mixed(AWP(MART(PGD_1)))])
def test_equal_weights_teach_what_none_teach_where_passes_are_recomputed(tmp_path: Path, strategy: Strategy) -> None:
    """The backward pass puts buffers back, which the weights are among."""
    learned = []
    for class_weights in (None, [2.0] * 4):
        pl.seed_everything(0)
        module = Classifier(
            small_net(7), partial(torch.optim.SGD, lr=0.1), class_weights=class_weights, strategy=strategy
        )
        trainer(tmp_path, max_epochs=1, limit_train_batches=2).fit(module, train_loader(), val_loader())
        learned.append(weights(module.net))
    torch.testing.assert_close(learned[0], learned[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "num_weights", "is_checked_first"),
    [(Strategy(), 2, True), (MART(PGD_1), 5, True), (MART(PGD_1), 2, False), (Mixed(MART(PGD_1)), 5, False)],
)
def test_more_or_fewer_weights_than_classes_are_refused_before_anything_is_learned(
    tmp_path: Path, strategy: Strategy, num_weights: int, is_checked_first: bool
) -> None:
    """Already by the validation that a run begins with, where it does."""
    seen: list[int] = []

    class Watching(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(1)

    module = Classifier(small_net(7), class_weights=[1.0] * num_weights, strategy=strategy)
    run = trainer(tmp_path, Watching(), num_sanity_val_steps=int(is_checked_first))
    message = rf"Classifier\(class_weights=...\) must be one for each of the 4 classes, got {num_weights}"
    with pytest.raises(ValueError, match=message):
        run.fit(module, train_loader(), val_loader())
    assert len(seen) == (0 if is_checked_first else 1)
    assert run.global_step == 0


def test_recall_of_each_class_and_its_mean_are_those_of_scikit_learn(tmp_path: Path) -> None:
    module, probe = Classifier(small_net(7).eval()), PerClass()
    run = trainer(tmp_path, probe)
    run.validate(module, val_loader(), verbose=False)
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    y[:9] = 1  # the net is right on its own labels
    run.validate(module, val_loader_of(x, y), verbose=False)
    predicted = module.net.eval()(x).argmax(1)
    expected = recall_score(y, predicted, average=None, labels=y.unique(), zero_division=0.0)
    for label, share in zip(y.unique().tolist(), expected, strict=True):
        assert float(run.callback_metrics[f"val/recall/{label}"]) == pytest.approx(share)
    balanced = balanced_accuracy_score(y, predicted)
    assert float(run.callback_metrics["val/balanced_accuracy"]) == pytest.approx(balanced)
    assert balanced != pytest.approx(float(run.callback_metrics["val/accuracy"]), abs=1e-3)


def test_where_logits_are_nan_no_class_is_recalled(tmp_path: Path) -> None:
    run = trainer(tmp_path, PerClass())
    run.validate(Diverged(small_net(7)), val_loader(), verbose=False)
    figures = {tag: float(value) for tag, value in run.callback_metrics.items()}
    assert {figures[f"val/recall/{number}"] for number in range(4)} == {0.0}
    assert figures["val/balanced_accuracy"] == 0


def val_loader_of(x: torch.Tensor, y: torch.Tensor) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 10)


def test_robust_accuracy_of_each_class_is_that_of_the_verdicts(tmp_path: Path) -> None:
    attacks = {"pgd": PGD(threat=Linf(eps=0.05), num_steps=3), "more": PGD(threat=Linf(eps=0.1), num_steps=3)}
    run = trainer(tmp_path, RobustAccuracy(attacks, per_class=True, num_images=0))
    run.validate(Classifier(small_net(7)), val_loader(), verbose=False)
    verdicts = np.load(next(tmp_path.rglob("verdicts.npz")))
    for label in np.unique(verdicts["label"]):
        of_class = verdicts["label"] == label
        for name in ("pgd", "more"):
            logged = float(run.callback_metrics[f"val/robust_recall/{name}/{label}"])
            assert logged == pytest.approx(verdicts[f"robust_{name}"][of_class].mean())
        both = (verdicts["robust_pgd"] & verdicts["robust_more"])[of_class].mean()
        assert float(run.callback_metrics[f"val/robust_recall/worst_case/{label}"]) == pytest.approx(both)


def test_classes_of_one_name_are_told_apart() -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(class_names=["crane", "duck", "crane"]))
    found = recalls(trainer, torch.tensor([True, True, False]), torch.tensor([0, 1, 2]))
    assert found == {"crane (0)": 1.0, "duck": 1.0, "crane (2)": 0.0}
