"""What `NamedPredictions` says in the terminal, of the files and of the net."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from touchstone.callbacks import NamedPredictions
from touchstone.datamodules import PicturesDataModule
from touchstone.lightning_modules import Classifier

from .picture_folders import RED, Classes


def test_files_of_the_same_name_are_told_apart_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, colour in (("red", (255, 0, 0)), ("blue/deep", (0, 0, 255))):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(tmp_path / folder / "a.png")
    (tmp_path / "red/b.png").write_bytes(b"")
    root = f"/{tmp_path}"  # as `$A/$B` is where A is the root of the disk
    data = PicturesDataModule(root, image_size=16, resize=16, class_names=["red", "green", "blue"])
    run = pl.Trainer(logger=False, callbacks=[NamedPredictions()], enable_progress_bar=False, accelerator="cpu")
    run.predict(Classes(), data, return_predictions=False)
    printed = capsys.readouterr().out.splitlines()
    assert [line[:18] for line in printed if "a.png" in line] == ["blue/deep/a.png: b", "red/a.png: red 100"]
    assert "red/b.png: not read: it is no picture, of no kind that is read, or damaged" in printed


class MeanColours(nn.Module):
    """A net without layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["by a function", "compiled"])
def test_a_net_whose_last_layer_nobody_sees_predicts_as_others(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 40), RED).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
    net = MeanColours() if kind == "by a function" else torch.jit.trace(Classes().net, torch.rand(1, 3, 16, 16))
    run = pl.Trainer(logger=False, callbacks=[NamedPredictions()], enable_progress_bar=False, accelerator="cpu")
    run.predict(Classifier(nn.Sequential(net)), data, return_predictions=False)
    printed = capsys.readouterr().out
    assert "the net: how many features enter the last layer is not known (last_layer: " in printed
    assert "a.png: red " in printed
