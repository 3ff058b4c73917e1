"""Which samples of which data loaders a `Probe` measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from touchstone.attacks import evaluate
from touchstone.callbacks import GradientNorm, Probe, RobustAccuracy

from .lightning_programs import Loaders, OrdinaryModule, samples, train_loader, trainer, val_loader
from .measured_runs import ATTACKS, Confidence

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


@pytest.mark.parametrize("batch_size", [3, 10, 23])
def test_max_samples_takes_the_first_of_the_dataset(tmp_path: Path, batch_size: int) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, max_samples=11, num_images=0), Confidence(max_samples=11))
    run.validate(OrdinaryModule(), val_loader(batch_size), verbose=False)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["sample_id"].tolist() == list(range(11))
    x, _ = val_loader().dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = OrdinaryModule().eval()(x[:11]).softmax(1).amax(1).mean().item()
    assert float(run.callback_metrics["val/confidence"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
@pytest.mark.parametrize(
    ("probe", "warns"),
    [
        (RobustAccuracy({"fgsm": ATTACKS["fgsm"]}), True),
        (Confidence(max_samples=5), True),
        (Confidence(max_samples=23), False),
        (Confidence(), False),  # a mean over all samples has no order
        (GradientNorm(), False),
    ],
)
def test_a_loader_that_shuffles_is_warned_of_where_the_order_counts(tmp_path: Path, probe: Probe, warns: bool) -> None:
    run, loader = trainer(tmp_path, probe), DataLoader(samples(23, seed=2), 10, shuffle=True)
    with pytest.raises(UserWarning, match="numbered by their place in the pass") if warns else nullcontext():
        run.validate(OrdinaryModule(), loader, verbose=False)


@pytest.mark.parametrize(
    "collection",
    [list, lambda pair: dict(zip("ab", pair, strict=True)), lambda pair: CombinedLoader(pair, "sequential")],
    ids=["list", "dict", "CombinedLoader"],
)
def test_several_loaders_are_measured_one_by_one(tmp_path: Path, collection: Any) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    module = OrdinaryModule()
    run.validate(module, collection([val_loader(), DataLoader(samples(7, seed=5), 4)]), verbose=False)
    for index, dataset in enumerate((samples(23, seed=2), samples(7, seed=5))):
        expected = evaluate(module, *dataset.tensors, ATTACKS).robust["pgd"].float().mean().item()
        tag = f"val/robust_accuracy/pgd/dataloader_idx_{index}"
        assert float(run.callback_metrics[tag]) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_each_loader_has_a_report_of_its_own(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version=0, default_hp_metric=False)

    def reports(*sizes: int) -> dict[str, int]:
        run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0), logger=logger)
        run.test(OrdinaryModule(), [DataLoader(samples(size), 4) for size in sizes], verbose=False)
        folder = Path(run.log_dir)  # type: ignore[arg-type]
        lengths = {path.name: len(np.load(path)["label"]) for path in folder.glob("*.npz")}
        counted = {path.name: json.loads(path.read_text())["num_samples"] for path in folder.glob("*.json")}
        return lengths | counted

    of_two = {"report.json": 6, "verdicts.npz": 6, "report_1.json": 3, "verdicts_1.npz": 3}
    assert reports(6, 3) == of_two
    assert reports(5) == {"report.json": 5, "verdicts.npz": 5}
    assert reports(0, 6, 3) == {"report.json": 6, "verdicts.npz": 6, "report_2.json": 3, "verdicts_2.npz": 3}


def test_loaders_that_are_drawn_from_at_once_are_refused(tmp_path: Path) -> None:
    class Both(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            self.log("val_loss", self._loss(batch["a"]))

    loaders = CombinedLoader({"a": val_loader(), "b": val_loader()}, "max_size")
    with pytest.raises(ValueError, match=r"CombinedLoader\(mode=...\) must be 'sequential'.*, got 'max_size'"):
        trainer(tmp_path, Confidence()).validate(Both(), loaders, verbose=False)


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_an_empty_dataset_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(ValueError, match="measured nothing: the validation has no samples"):
        run.validate(OrdinaryModule(), DataLoader(samples(0), 4), verbose=False)


@pytest.mark.filterwarnings("ignore:.*module.s. in eval mode")
@pytest.mark.parametrize("method", ["validate", "test"])
def test_a_search_for_a_batch_size_ends_without_a_measurement(tmp_path: Path, method: Any) -> None:
    class Sized(Loaders):
        batch_size = 1

        def val_dataloader(self) -> DataLoader:
            return val_loader(self.batch_size)

        test_dataloader = val_dataloader

    run, data = trainer(tmp_path, RobustAccuracy(ATTACKS)), Sized()
    Tuner(run).scale_batch_size(OrdinaryModule(), datamodule=data, method=method, max_trials=2, steps_per_trial=1)
    assert data.batch_size > 1
    run.validate(OrdinaryModule(), datamodule=data, verbose=False)
    assert "val/robust_accuracy/pgd" in run.callback_metrics


class Nothing(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.filterwarnings("ignore:Total length of `.*` across ranks is zero")
@pytest.mark.parametrize(
    "loader",
    [DataLoader(samples(0), 4), DataLoader(samples(3), 4, drop_last=True), DataLoader(Nothing(), 4)],
    ids=["no samples", "less than a batch", "a stream"],
)
def test_a_training_without_a_batch_is_an_error_that_says_so(tmp_path: Path, loader: DataLoader) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0))
    with pytest.raises(ValueError, match="nothing was trained: the training data have no batch"):
        run.fit(OrdinaryModule(), loader, val_loader())


@pytest.mark.parametrize("options", [{"limit_train_batches": 0}, {"max_epochs": 0}, {"max_steps": 0}])
def test_a_training_that_is_switched_off_is_no_error(tmp_path: Path, options: dict[str, Any]) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), **options)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert run.global_step == 0


def test_a_training_that_is_stopped_before_its_first_batch_is_no_error(tmp_path: Path) -> None:
    class Stops(OrdinaryModule):
        def on_train_epoch_start(self) -> None:
            self.trainer.should_stop = True

    run = trainer(tmp_path, RobustAccuracy(ATTACKS), min_epochs=0)
    run.fit(Stops(), train_loader(), val_loader())
    assert run.global_step == 0
