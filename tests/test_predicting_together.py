"""At `predict`, every process asks for the run folder equally often, whatever its pictures: asking is a collective."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader

from touchstone.attacks import FGSM, L1Adam, Linf
from touchstone.callbacks import LeastVisible, NamedPredictions, Predictions, TargetedPictures
from touchstone.datamodules import PicturesDataModule

from .picture_folders import Classes

CALLBACKS: dict[str, Callable[[], pl.Callback]] = {
    "predictions": Predictions,
    "named": lambda: NamedPredictions(labelled=False),
    "targeted": lambda: TargetedPictures(1, attacks={"fgsm": FGSM(threat=Linf(eps=0.1))}),
    "least_visible": lambda: LeastVisible([1], attack=L1Adam(threat=Linf(eps=1), penalty=0.1, num_steps=2)),
}


def predict(folder: Path, callback: pl.Callback, num_pictures: int) -> None:
    folder.mkdir()
    for number in range(num_pictures):
        Image.new("RGB", (16, 16), (140, 120, 120)).save(folder / f"{number}.png")
    if not num_pictures:
        (folder / "damaged.png").touch()
    trainer = pl.Trainer(
        logger=CSVLogger(folder / "logs"),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    data = PicturesDataModule(str(folder), image_size=16, resize=16, batch_size=1, class_names=["a", "b", "c"])
    trainer.predict(Classes(), data, return_predictions=False)


@pytest.mark.parametrize(
    ("name", "num_pictures"), [*((name, 1) for name in CALLBACKS), ("named", 0), ("targeted", 0), ("least_visible", 0)]
)
def test_the_run_folder_is_asked_for_as_often_with_fewer_pictures(
    name: str, num_pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    own = pl.Trainer.log_dir.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(pl.Trainer, "log_dir", property(lambda trainer: asked.append(1) or own(trainer)))
    predict(tmp_path / "three", CALLBACKS[name](), 3)
    num_asked = len(asked)
    with pytest.raises(ValueError, match="could not read") if (name, num_pictures) == ("named", 0) else nullcontext():
        predict(tmp_path / "fewer", CALLBACKS[name](), num_pictures)
    assert num_asked > 0
    assert len(asked) == 2 * num_asked


class Bare(pl.LightningDataModule):
    """Knows no files."""

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["named", "targeted", "least_visible"])
def test_what_is_needed_of_the_data_is_said_before_anything_is_predicted(name: str) -> None:
    callback = CALLBACKS[name]()
    run = pl.Trainer(logger=False, callbacks=[callback], enable_progress_bar=False, accelerator="cpu")
    call = type(callback).__name__
    with pytest.raises(ValueError, match=rf"^{call} needs a data module with files, .*Module, got none, but a data lo"):
        run.predict(Classes(), DataLoader(torch.zeros(2, 3, 8, 8)))
    with pytest.raises(ValueError, match=rf"^{call} needs a data module with .* got Bare without files, .*class_names"):
        run.predict(Classes(), datamodule=Bare())


def test_rows_that_nobody_can_tell_apart_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Predictions: predict_step returned 0 rows for a batch of 1 samples"):
        predict(tmp_path / "damaged", Predictions(), 0)
