"""`Predictions`: every row is known by its sample, whatever the loader."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from touchstone.callbacks import Predictions
from touchstone.callbacks.parts.names.probabilities import are_probabilities

from .lightning_programs import OrdinaryModule, samples, trainer


class Predicting(OrdinaryModule):
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self(batch[0]).softmax(1)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(samples(7))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_samples_without_positions_are_counted_through_the_batches(tmp_path: Path) -> None:
    run = trainer(tmp_path, Predictions())
    for _ in range(2):  # a second pass begins anew
        run.predict(Predicting(), DataLoader(Stream(), 3), return_predictions=False)
        assert [row["sample"] for row in rows(Path(run.log_dir, "predictions.csv"))] == list("0123456")  # type: ignore[arg-type]


def test_each_of_several_loaders_has_a_table_of_its_own(tmp_path: Path) -> None:
    run, module = trainer(tmp_path, Predictions(top_k=1)), Predicting()
    sets = [samples(5), samples(4, seed=1)]
    run.predict(module, [DataLoader(part, 3) for part in sets], return_predictions=False)
    for name, part in zip(("predictions.csv", "predictions_1.csv"), sets, strict=True):
        found = rows(Path(run.log_dir, name))  # type: ignore[arg-type]
        with torch.no_grad():
            expected = module.eval()(part.tensors[0]).argmax(1).tolist()
        assert [(int(row["sample"]), int(row["class_1"])) for row in found] == list(enumerate(expected))


class FourNames(LightningDataModule):
    class_names = ("10", "zero", "ten", "one")

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(samples(5), batch_size=3)


def test_classes_have_their_numbers_behind_all_other_columns(tmp_path: Path) -> None:
    data = FourNames()
    run, module = trainer(tmp_path, Predictions(top_k=2)), Predicting()
    run.predict(module, data, return_predictions=False)
    found = rows(Path(run.log_dir, "predictions.csv"))  # type: ignore[arg-type]
    before = ["sample", "class_1", "probability_1", "class_2", "probability_2"]
    assert list(found[0]) == [*before, "class_number_1", "class_number_2"]
    with torch.no_grad():
        expected = module.eval()(samples(5).tensors[0]).argsort(1, descending=True)[:, :2].tolist()
    assert [[int(row[f"class_number_{k}"]) for k in (1, 2)] for row in found] == expected
    assert all(row["class_1"] == data.class_names[int(row["class_number_1"])] for row in found)


class Raw(OrdinaryModule):
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return 10 * self(batch[0]) - 5


@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # of Lightning
def test_logits_are_not_written_as_probabilities(tmp_path: Path) -> None:
    run = trainer(tmp_path, Predictions())
    with pytest.warns(UserWarning, match=r"predict_step must return probabilities .* a row sums to -") as given:
        run.predict(Raw(), DataLoader(samples(5), 2), return_predictions=False)
    assert len([one for one in given if "Predictions" in str(one.message)]) == 1
    assert not Path(run.log_dir, "predictions.csv").exists()  # type: ignore[arg-type]


class Independent(OrdinaryModule):
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self(batch[0]).sigmoid()


def test_shares_of_classes_that_do_not_exclude_one_another_are_written(tmp_path: Path) -> None:
    run, module, given = trainer(tmp_path, Predictions(top_k=1)), Independent(), samples(5)
    run.predict(module, DataLoader(given, 3), return_predictions=False)
    with torch.no_grad():
        expected = 1 / (1 + (-module.eval()(given.tensors[0]).amax(1)).exp())
    found = [float(row["probability_1"]) for row in rows(Path(run.log_dir, "predictions.csv"))]  # type: ignore[arg-type]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [1, 2, 1000])
def test_a_softmax_gives_probabilities_in_every_precision(dtype: torch.dtype, num_classes: int) -> None:
    logits = 5 * torch.randn(8, num_classes, generator=torch.Generator().manual_seed(0))
    assert are_probabilities(logits.to(dtype).softmax(1))
    assert not are_probabilities(logits.to(dtype))


def test_of_several_processes_samples_without_positions_are_numbered_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("touchstone.callbacks.predictions.run_folder", lambda _: tmp_path)
    second: Any = SimpleNamespace(
        global_rank=1, world_size=2, datamodule=None, predict_loop=SimpleNamespace(num_dataloaders=1)
    )
    callback, module = Predictions(top_k=1), OrdinaryModule()
    callback.on_predict_start(second, module)
    for batch_idx in range(2):
        callback.write_on_batch_end(second, module, torch.eye(2), None, None, batch_idx, 0)
    assert [row["sample"] for row in rows(tmp_path / "predictions_rank_1.csv")] == ["1", "3", "5", "7"]
