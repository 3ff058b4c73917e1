"""Pictures are read as people have them, and predicted with names."""

from __future__ import annotations

import csv
import importlib.util
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageFilter
from torch import Tensor, nn

from touchstone.callbacks import NamedPredictions
from touchstone.callbacks.parts.pictures.labelled_copy import labelled_copy
from touchstone.callbacks.parts.pictures.named_picture import Named, named_picture
from touchstone.datamodules import PicturesDataModule
from touchstone.datamodules.parts.read_picture import read_picture
from touchstone.lightning_modules import Classifier
from touchstone.nets import EfficientNetLite0, SmallCNN, TorchvisionNet, untrained
from touchstone.nets.last_layer import last_layer
from touchstone.nets.preset import Preset

needs_imagenet = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="the extra imagenet is not installed"
)
RED = (200, 30, 40)


def two_halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Red on the left, white on the right."""
    picture = Image.new("RGB", size, "white")
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture


def rotated(folder: Path) -> Path:
    """Stored lying, with the note that it is to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves().transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg", exif=exif, quality=95)
    return folder / "a.jpg"


def with_alpha(folder: Path) -> Path:
    picture = two_halves().convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (20, 0, 40, 20))  # the right half is transparent, above black
    picture.paste((0, 0, 0, 0), (20, 0, 40, 20))
    picture.putalpha(alpha)
    picture.save(folder / "a.png")
    return folder / "a.png"


def transparent_palette(folder: Path) -> Path:
    picture = two_halves().quantize(4)
    white = min(range(2), key=lambda i: -sum(picture.getpalette()[3 * i : 3 * i + 3]))
    picture.save(folder / "a.png", transparency=white)
    return folder / "a.png"


def saved(name: str, mode: str = "RGB", **options: Any) -> Any:
    def save(folder: Path) -> Path:
        picture = two_halves().quantize(4) if mode == "P" else two_halves().convert(mode)
        picture.save(folder / name, **options)
        return folder / name

    return save


@pytest.mark.parametrize(
    "make",
    [
        saved("a.jpg", quality=95),
        saved("a.jpg", "CMYK", quality=95),
        saved("a.png", "P"),
        saved("a.gif", "P"),
        saved("a.webp", lossless=True),
        saved("a.bmp"),
        saved("a.tiff", "CMYK"),
        rotated,
        with_alpha,
        transparent_palette,
    ],
    ids=["jpeg", "cmyk jpeg", "palette", "gif", "webp", "bmp", "cmyk tiff", "exif", "alpha", "transparent palette"],
)
def test_a_picture_of_any_kind_is_read_as_upright_rgb(tmp_path: Path, make: Any) -> None:
    picture = read_picture(make(tmp_path))
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[3:17, 3:17] - RED).max() < 25
    assert pixels[3:17, 23:37].min() > 230


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_grey_of_any_depth_keeps_its_range(tmp_path: Path, dtype: Any, white: float) -> None:
    ramp = (np.linspace(0, 1, 256)[None].repeat(8, 0) * white).astype(dtype)
    path = tmp_path / ("a.tiff" if dtype is np.float32 else "a.png")
    Image.fromarray(ramp).save(path)
    read = np.asarray(read_picture(path)).astype(int)
    assert read.shape == (8, 256, 3)
    assert np.abs(read[0, :, 0] - np.arange(256)).max() <= 1


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_picture(tmp_path / "a.png")).max() == 1


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(read_picture(tmp_path / "a.gif")).astype(int) - RED).max() < 10


def test_heic_is_read_where_there_is_a_library(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(two_halves((64, 32))).save(tmp_path / "a.heic", quality=95)
    picture = read_picture(tmp_path / "a.heic")
    assert (picture.mode, picture.size) == ("RGB", (64, 32))
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[4:28, 4:26] - RED).max() < 30
    assert pixels[4:28, 38:60].min() > 225
    with pytest.raises(ValueError, match="a bomb"):
        read_picture(tmp_path / "a.heic", max_pixels=1000)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
def test_heic_without_a_library_says_which(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        read_picture(tmp_path / "a.heic")


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    with pytest.raises(ValueError, match="a bomb"):
        read_picture(bomb(tmp_path / "a.png", side))


class Classes(pl.LightningModule):
    """A net of 3 classes by the mean of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
        self.net[2].weight.data = 9 * torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).softmax(1)


def folder_of_pictures(folder: Path) -> Path:
    for name, colour in (("b_green.png", (0, 255, 0)), ("sub/c_blue.jpg", (0, 0, 255)), ("z_red.webp", (255, 0, 0))):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (300, 200), colour).save(folder / name)
    whole = (folder / "sub/c_blue.jpg").read_bytes()
    (folder / "a_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d_empty.png").write_bytes(b"")
    bomb(folder / "e_bomb.png", 20_000)
    (folder / "notes.txt").write_text("no picture")
    return folder


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


@pytest.mark.parametrize(("names", "batch_size"), [(["a.jpg"], 16), (["a.jpg", "b.png"], 1)])
def test_a_batch_of_damaged_files_alone_ends_no_run(
    tmp_path: Path, names: list[str], batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of_pictures(tmp_path / "in")
    damaged, whole = tmp_path / "in/a_cut.jpg", tmp_path / "in/b_green.png"
    for name, file in zip(names, (damaged, whole), strict=False):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(file.read_bytes())
    data = PicturesDataModule(str(tmp_path / "out"), batch_size=batch_size, class_names=["red", "green", "blue"])
    trainer = pl.Trainer(
        logger=False, callbacks=[NamedPredictions()], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.predict(Classifier(nn.Sequential(InOneRow(), nn.Linear(3, 3))), data, return_predictions=False)
    assert f"{len(names) - 1} pictures predicted, 1 could not be read" in capsys.readouterr().out


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


def test_the_centre_of_a_long_picture_is_cut_out(tmp_path: Path) -> None:
    picture = Image.new("RGB", (900, 100), "white")
    picture.paste(RED, (400, 0, 500, 100))
    picture.save(tmp_path / "a.png")
    ((x, positions, damaged),) = PicturesDataModule(
        str(tmp_path / "a.png"), image_size=32, resize=32
    ).predict_dataloader()
    assert x.shape == (1, 3, 32, 32)
    assert torch.allclose(x[0].mean((1, 2)), torch.tensor(RED) / 255, atol=0.02)
    assert (positions.tolist(), damaged) == ([0], [])


class Asking(Classes):
    """With a net inside that says what its weights were made for; it keeps what it is given."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Identity())
        self.inside[0].preset = preset
        self.given: list[Tensor] = []

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.given.append(batch[0])
        return super().predict_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:The default weight initialization of inception_v3")
@pytest.mark.parametrize("name", ["efficientnet_b4", "inception_v3", "resnet50", "alexnet"])
def test_pictures_are_cut_as_the_weights_were_made_for(tmp_path: Path, name: str) -> None:
    """Against torchvision's own transform, which cuts at whole pixels; of a soft picture that makes no difference."""
    import sklearn.datasets
    from torchvision import models

    with Image.open(Path(sklearn.datasets.__file__).parent / "images/china.jpg") as photograph:
        photograph.filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "soft.png")

    with torch.device("meta"):
        preset = TorchvisionNet(name, weights=None).preset
    transform = models.get_model_weights(name)["DEFAULT"].transforms()
    transform.mean, transform.std = [0.0] * 3, [1.0] * 3
    data, module = PicturesDataModule(str(tmp_path / "soft.png")), Asking(preset)
    run = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    run.predict(module, data)
    expected = transform(data.picture(0))
    assert module.given[0].shape[1:] == expected.shape
    assert float((module.given[0][0] - expected).abs().mean()) < 0.005
    usual = PicturesDataModule(str(data.files[0]), image_size=preset.image_size, resize=preset.resize + 40)
    farther = next(iter(usual.predict_dataloader()))[0][0]
    assert float((farther - expected).abs().mean()) > 0.02


def test_what_is_given_comes_before_what_the_weights_were_made_for(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    for options, expected in (
        ({}, Preset(100, 120, "bilinear")),
        ({"image_size": 50}, Preset(50, 60, "bilinear")),
        ({"image_size": 50, "resize": 70, "interpolation": "bicubic"}, Preset(50, 70, "bicubic")),
    ):
        data, module = PicturesDataModule(str(tmp_path), **options), Asking(Preset(100, 120, "bilinear"))
        run = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
        run.predict(module, data)
        assert data.preset() == expected
        assert module.given[0].shape[-1] == expected.image_size
    assert PicturesDataModule(str(tmp_path)).preset() == Preset(224, 256, "bicubic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, r"interpolation=...\) must be bilinear or bicubic, got 'cubic'"),
        ({"root": "nowhere"}, "no such folder or file"),
        ({"batch_size": 0}, r"batch_size=...\) must be >= 1"),
        ({"resize": 100}, r"resize=...\) must be >= 224, got 100"),
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


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", ("net.fc", 512)), ("squeezenet1_1", ("net.classifier.1", 512))]
)
def test_the_features_of_the_last_layer_are_counted(name: str, expected: tuple[str, int]) -> None:
    net = TorchvisionNet(name, weights=None).train()
    assert last_layer(net, torch.rand(1, 3, 64, 64)) == expected
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_a_net_of_torchvision_is_normalized_and_an_unknown_one_is_named() -> None:
    net, x = TorchvisionNet("resnet18", weights=None).eval(), torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(net(x), net.net((x - mean) / std), atol=1e-5)
    with pytest.raises(ValueError, match="the nearest resnet50"):
        TorchvisionNet("resnet5O")
    with pytest.raises(ValueError, match="IMAGENET1K_V1, DEFAULT, or null"):
        TorchvisionNet("resnet18", weights="BEST")


@pytest.mark.parametrize(
    "net",
    [
        ("TorchvisionNet", "--model.net.name", "squeezenet1_1"),
        pytest.param(("EfficientNetLite0",), marks=needs_imagenet),
    ],
    ids=["torchvision", "lite0"],
)
def test_the_random_weights_of_a_net_are_asked_for_on_the_command_line(
    run: Any, root: Path, net: tuple[str, ...]
) -> None:
    Image.new("RGB", (64, 64), RED).save("a.png")
    options = ("--data.root", "a.png", "--model.net", *net, "--model.net.weights", "null")
    ended = run("predict", "--config", str(root / "configs/imagenet.yaml"), *options)
    assert ended.code == 0, ended.err
    assert "1 pictures predicted" in ended.out


def test_what_stands_beside_is_the_own_net_with_random_weights(run: Any, root: Path) -> None:
    Image.new("RGB", (64, 64), RED).save("a.png")
    options = ("--data.root", "a.png", "--model.net", "TorchvisionNet", "--model.net.name", "squeezenet1_1")
    ended = run(
        "predict", "--config", str(root / "configs/imagenet_random.yaml"), *options, "--model.net.weights", "null"
    )
    assert ended.code == 0, ended.err
    assert "the net: 512 features enter the last layer, net.net.classifier.1" in ended.out
    assert "random: 512 features enter the last layer, net.classifier.1" in ended.out


@pytest.mark.parametrize(
    ("net", "size", "side"),
    [("alexnet", 32, 224), ("vit_b_32", 256, 224), ("inception_v3", 64, 299), ("squeezenet1_1", 8, 224)],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization of inception_v3")
def test_a_net_that_does_not_take_the_size_says_which_it_takes(tmp_path: Path, net: str, size: int, side: int) -> None:
    Image.new("RGB", (64, 64), RED).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path), image_size=size, resize=size, class_names=None)
    module = Classifier(TorchvisionNet(net, weights=None))
    run = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    message = (
        f"TorchvisionNet does not take pictures of {size} x {size} pixels, but of {side} x {side}: --data.image_size"
    )
    with pytest.raises(ValueError, match=message):
        run.predict(module, data)


def test_a_net_without_a_preset_finds_its_size_and_another_error_stays_what_it_is(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 256, 256)
    small = Classifier(SmallCNN(in_channels=3, image_size=32, width=4)).eval()
    with pytest.raises(ValueError, match="of 256 x 256 pixels, but of 32 x 32: --data.image_size 32"):
        small.predict_step(x, 0)
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels"):
        small.predict_step(x[:, :1], 0)


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


@pytest.mark.parametrize("make", [lambda: SmallCNN(width=4), lambda: TorchvisionNet("resnet18", weights=None)])
def test_an_untrained_copy_is_the_same_net_with_other_weights(make: Any) -> None:
    net = make().eval()
    for parameter in net.parameters():
        parameter.data.fill_(3.0)
    for buffer in net.buffers():
        buffer.data.fill_(3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(1)
    other = untrained(net)
    torch.manual_seed(1)
    new = make()
    assert other.state_dict().keys() == new.state_dict().keys()
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in other.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_net_whose_weights_nothing_draws_is_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.scale = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"untrained\(Sequential\) must be .*; nothing draws scale"):
        untrained(net)


def test_weights_that_cannot_be_downloaded_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot be downloaded \(no network\)"):
        TorchvisionNet("resnet18")


@pytest.mark.slow
@needs_imagenet
def test_the_embedded_net_names_three_quarters_of_the_samples(shared: Path) -> None:
    """And fewer with ImageNet's usual normalization, so that the one it has is right: 88 % against 77 %."""
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
import resource, sys
import train
code = train.main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
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
            [sys.executable, "-c", COSTS, "predict", *options, "--num_threads", "1"],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        code, megabytes, seconds = run.stdout.split("\n")[-2].split()
        assert code == "0", run.stderr
        measured[folder] = (int(megabytes), float(seconds))
    print(measured)
    assert measured["all"][1] < 30
    assert measured["twice"][0] < measured["few"][0] + 90  # 174 pictures as float32 are 105 MB
