"""Pictures are cut as the weights of the net were made for, unless a size is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from touchstone.datamodules import PicturesDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN, TorchvisionNet
from touchstone.nets.preset import Preset

from .picture_folders import RED, Classes

GREY_LEVEL = 1.001 / 255


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
    """Against torchvision's own transform, to a grey level."""
    import sklearn.datasets
    from torchvision import models

    with torch.device("meta"):
        preset = TorchvisionNet(name, weights=None).preset
    transform = models.get_model_weights(name)["DEFAULT"].transforms()
    transform.mean, transform.std = [0.0] * 3, [1.0] * 3
    photograph = Path(sklearn.datasets.__file__).parent / "images/china.jpg"
    data, module = PicturesDataModule(str(photograph)), Asking(preset)
    run = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    run.predict(module, data)
    assert torch.allclose(module.given[0][0], transform(data.picture(0)), rtol=0, atol=GREY_LEVEL)


@pytest.mark.parametrize("size", [(37, 30), (30, 37), (38, 30), (30, 30), (61, 30), (113, 45), (45, 300), (17, 16)])
@pytest.mark.parametrize("preset", [Preset(24, 30, "bicubic"), Preset(24, 29, "bilinear"), Preset(24, 24, "bicubic")])
def test_noise_is_cut_at_whole_pixels_whatever_its_margins(
    tmp_path: Path, size: tuple[int, int], preset: Preset
) -> None:
    """Against torchvision's `Resize` and `CenterCrop`; noise has waves of every length, which a half pixel blurs.

    It is faint, so that nothing is clipped between Pillow's two passes, whose order depends on the sizes.
    """
    width, height = size
    noise = np.random.default_rng(0).integers(96, 160, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    data = PicturesDataModule(
        str(tmp_path / "a.png"),
        image_size=preset.image_size,
        resize=preset.resize,
        interpolation=preset.interpolation,
    )
    ((x, _, _),) = data.predict_dataloader()
    resize = transforms.Resize(preset.resize, transforms.InterpolationMode(preset.interpolation))
    whole = transforms.Compose([resize, transforms.CenterCrop(preset.image_size), transforms.ToTensor()])
    assert torch.allclose(x[0], whole(Image.fromarray(noise)), rtol=0, atol=2 * GREY_LEVEL)


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
    with pytest.raises(ValueError, match="but of 32 x 32: make it with image_size=256, or --data.image_size 32"):
        small.predict_step(x, 0)
    with pytest.raises(ValueError, match="the images have 1 channels and the net takes 3: convert them"):
        small.predict_step(x[:, :1], 0)
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2 channels"):
        small.predict_step(x[:, :2], 0)
