"""Pictures are read as people have them, and predicted with names."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor, nn

from touchstone.callbacks import NamedPredictions
from touchstone.callbacks.parts.pictures.labelled_copy import labelled_copy
from touchstone.callbacks.parts.pictures.named_picture import Named, named_picture
from touchstone.datamodules import PicturesDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import EfficientNetLite0, TorchvisionNet

from .picture_folders import RED, Classes, folder_of_pictures, needs_imagenet


@pytest.mark.parametrize("batch_size", [1, 16])
def test_damaged_files_are_named_skipped_and_counted(
    tmp_path: Path, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PicturesDataModule(
        str(folder_of_pictures(tmp_path / "in")), batch_size=batch_size, class_names=["red", "green", "blue"]
    )
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    callback = NamedPredictions(top_k=2, beside={"other": Classes().net})
    trainer = pl.Trainer(
        logger=logger, callbacks=[callback], enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
    )
    trainer.predict(Classes(), data, return_predictions=False)
    folder = Path(logger.log_dir)
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["file"]).name, row["class_1"]) for row in rows] == [
        ("b_green.png", "green"),
        ("c_blue.jpg", "blue"),
        ("z_red.webp", "red"),
    ]
    assert all(float(row["probability_1"]) > 0.99 and row["other_class_1"] == row["class_1"] for row in rows)
    numbers = ["class_number_1", "class_number_2", "other_class_number_1", "other_class_number_2"]
    assert list(rows[0])[-4:] == numbers  # behind all others, which readers by position find where they were
    assert [row["class_number_1"] + row["other_class_number_1"] for row in rows] == ["11", "22", "00"]
    copies = sorted(path.name for path in (folder / "labelled").iterdir())
    assert len(copies) == 3
    with Image.open(folder / "labelled" / copies[0]) as copy:
        assert copy.height > 200
    assert (folder / "figures/predictions.png").stat().st_size > 5_000
    printed = capsys.readouterr().out
    assert "3 pictures predicted, 3 could not be read" in printed
    assert all(printed.count(name) == 2 for name in ("a_cut.jpg", "d_empty.png", "e_bomb.png"))
    assert "the net: 3 features enter the last layer, net.2" in printed
    assert "b_green.png: green 100.0%" in printed


class InOneRow(nn.Module):
    """A net that ends as many do, which takes no batch without samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).view(len(x), -1)


def predict_without_logs(tmp_path: Path, names: list[str], batch_size: int) -> None:
    """Predicts a damaged and a whole picture, or the damaged one alone, under these names."""
    folder_of_pictures(tmp_path / "in")
    damaged, whole = tmp_path / "in/a_cut.jpg", tmp_path / "in/b_green.png"
    (tmp_path / "out").mkdir()
    for name, file in zip(names, (damaged, whole), strict=False):
        (tmp_path / "out" / name).write_bytes(file.read_bytes())
    data = PicturesDataModule(str(tmp_path / "out"), batch_size=batch_size, class_names=["red", "green", "blue"])
    trainer = pl.Trainer(
        logger=False, callbacks=[NamedPredictions()], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.predict(Classifier(nn.Sequential(InOneRow(), nn.Linear(3, 3))), data, return_predictions=False)


def test_a_batch_of_damaged_files_alone_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict_without_logs(tmp_path, ["a.jpg", "b.png"], batch_size=1)
    assert "1 picture predicted, 1 could not be read" in capsys.readouterr().out


def test_a_run_that_could_read_nothing_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="NamedPredictions could not read .*a.jpg: .*, so that nothing is predicted"):
        predict_without_logs(tmp_path, ["a.jpg"], batch_size=16)
    out = capsys.readouterr().out
    assert "0 pictures predicted, 1 could not be read" in out
    assert out.count("a.jpg") == 2


class Raw(Classes):
    """Somebody's own, whose `predict_step` returns what the net puts out."""

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])


class Nan(Classes):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.nan


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Raw(),
            r"predict_step must return the probabilities .* `softmax\(1\)` .* got float32 \(1, 3\) from 0 to 9, of ",
        ),
        (Nan(), r"the net puts out NaN for 1 of 1 pictures, first for .*a\.png"),
    ],
)
def test_what_is_no_probability_is_not_written_as_one(tmp_path: Path, module: Classes, message: str) -> None:
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
    run = pl.Trainer(logger=False, callbacks=[NamedPredictions()], enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match=f"NamedPredictions: {message}"):
        run.predict(module, data, return_predictions=False)


def test_the_classes_stand_below_their_picture() -> None:
    found = {"": [("tabby", 0.75), ("tiger cat", 0.2)], "random": [("tench", 0.0012), ("eel", 0.001)]}
    figure = named_picture([Named("a.jpg", torch.rand(3, 8, 8), found)] * 2)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == 2 * ["75.0% tabby", "20.0% tiger cat"] + 2 * ["0.1% tench", "0.1% eel"]
    assert [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        "a.jpg",
        "the net",
        "random",
    ]


@pytest.mark.parametrize("num_pictures", [1, 3])
def test_long_names_are_cut_before_the_edge_of_the_picture(num_pictures: int) -> None:
    found = [("American Staffordshire terrier of a long-haired kind", 0.5)]
    found.append(("Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk", 0.3))
    named = Named("a_photograph_of_a_terrier_in_the_mountains.jpg", torch.rand(3, 64, 64), {"": found})
    figure = named_picture([named] * num_pictures)
    FigureCanvasAgg(figure).draw()
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    said = "\n".join(text.get_text() for text in texts)
    assert "50.0% American Staffordshire terrier" in said
    assert "\N{HORIZONTAL ELLIPSIS}" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, r"interpolation=...\) must be one of 'bilinear', 'bicubic', got 'cubic'"),
        ({"root": "nowhere"}, "no such folder or file$"),
        ({"root": "file:/nowhere/a.png"}, "no such folder or file; give its path, no address"),
        ({"batch_size": 0}, r"batch_size=...\) must be >= 1"),
        ({"resize": 100}, r"resize=...\) must be >= 224, or None for that of the net, got 100"),
    ],
)
def test_what_cannot_be_read_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PicturesDataModule(**options)


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures in this folder"):
        PicturesDataModule(str(tmp_path))


def test_a_label_is_readable_at_any_size() -> None:
    for size in ((60, 50), (4000, 3000)):
        copy = labelled_copy(Image.new("RGB", size, "white"), ["Pembroke, Pembroke Welsh corgi 91.2%"])
        band = np.asarray(copy.convert("L"))[:40]
        assert band.min() < 60  # there is ink
        assert band.max() == 255
        assert copy.width >= 150
        assert max(copy.size) < 1200


def test_a_label_is_readable_in_any_script() -> None:
    def ink(label: str) -> bytes:
        return labelled_copy(Image.new("RGB", (60, 50), "white"), [label]).tobytes()

    for letters in ("éèñłő", "собак", "αβγδε", "בגדהו"):
        assert len({ink(letter) for letter in letters}) == len(letters)
    assert ink("猫") == ink(r"\u732b")  # as other pictures show what the font has no sign for


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("tarantula", "TargetedPictures(feature_layers='net._bn0') must be a layer of Classifier: "),
        ("deep_dream", "DeepDream(layers='_blocks.2') must be a layer of Classifier: "),
    ],
)
def test_the_layers_of_another_net_are_missed_before_anything_is_predicted(
    run: Any, root: Path, config: str, message: str
) -> None:
    Image.new("RGB", (64, 64), RED).save("a.png")
    net = ("TorchvisionNet", "--model.net.name", "squeezenet1_1", "--model.net.weights", "null")
    path = str(root / f"configs/{config}.yaml")
    ended = run("predict", "--config", path, "--data.root", "a.png", "--model.net", *net)
    assert ended.code == 1
    assert message in ended.err
    assert "a.png" not in ended.out


@pytest.mark.slow
@needs_imagenet
def test_the_embedded_net_names_three_quarters_of_the_samples(shared: Path) -> None:
    """And fewer with ImageNet's usual normalization, so that the one it has is right: 86.4 % against 78.6 %."""
    data = PicturesDataModule(str(shared / "data/imagenet_samples"))
    net, batches = EfficientNetLite0().eval(), list(data.predict_dataloader())
    usual = TorchvisionNet("resnet18", weights=None).normalize
    x, y = torch.cat([batch[0] for batch in batches]), torch.tensor([int(file.name[:3]) for file in data.files])
    with torch.inference_mode():
        share = float((torch.cat([net(part) for part in x.split(26)]).argmax(1) == y).float().mean())
        other = float((torch.cat([net.net(usual(part)) for part in x.split(26)]).argmax(1) == y).float().mean())
    print(f"{share:.1%}, with the usual normalization {other:.1%}")
    assert share >= 0.85
    assert other < share - 0.05
    assert data.class_names is not None
    assert data.class_names[76] == "tarantula"


COSTS = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_maxrss // 1024, used.ru_utime + used.ru_stime)
"""


@pytest.mark.slow
@needs_imagenet
def test_photographs_are_predicted_in_half_a_minute_of_cpu_time_and_memory_does_not_grow(
    root: Path, shared: Path, tmp_path: Path
) -> None:
    """15 s on two cores are 30 s of CPU time, whatever else the machine does; 2 and 13 batches take the same memory."""
    samples = sorted((shared / "data/imagenet_samples").iterdir())
    for folder, files in (("few", samples[:32]), ("all", samples), ("twice", samples)):
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file.name).symlink_to(file)
    for file in samples:
        (tmp_path / "twice" / f"again_{file.name}").symlink_to(file)
    measured = {}
    for folder in ("few", "all", "twice"):
        options = ["--config", str(root / "configs/imagenet.yaml"), "--data.root", str(tmp_path / folder)]
        run = subprocess.run(
            [sys.executable, "-c", COSTS, str(root / "train.py"), "predict", *options, "--num_threads", "1"],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        code, megabytes, seconds = run.stdout.split("\n")[-2].split()
        assert code == "0", run.stderr
        measured[folder] = (int(megabytes), float(seconds))
    print(measured)
    assert measured["all"][1] < 30
    assert measured["twice"][0] < measured["few"][0] + 90  # 174 pictures as float32 are 105 MB
