"""Nets with weights that others trained, their last layer, and the same nets without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from touchstone.nets import SmallCNN, TorchvisionNet, untrained
from touchstone.nets.imagenet import MEAN, STD
from touchstone.nets.last_layer import last_layer
from touchstone.nets.normalize import Normalize
from touchstone.nets.preset import Preset

from .picture_folders import RED, needs_imagenet


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", ("net.fc", 512)), ("squeezenet1_1", ("net.classifier.1", 512))]
)
def test_the_features_of_the_last_layer_are_counted(name: str, expected: tuple[str, int]) -> None:
    net = TorchvisionNet(name, weights=None).train()
    assert last_layer(net, torch.rand(1, 3, 64, 64)) == expected
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_the_last_layer_may_be_called_by_keyword() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(input=x)

    assert last_layer(Net(), torch.rand(1, 4)) == ("fc", 4)


def test_a_net_that_trains_is_left_as_it_was_where_its_weights_are_computed() -> None:
    net = nn.Sequential(spectral_norm(nn.Linear(5, 4)), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert last_layer(net, torch.rand(2, 5)) == ("1", 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


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
    assert "1 picture predicted" in ended.out


def test_what_stands_beside_is_the_own_net_with_random_weights(run: Any, root: Path) -> None:
    Image.new("RGB", (64, 64), RED).save("a.png")
    options = ("--data.root", "a.png", "--model.net", "TorchvisionNet", "--model.net.name", "squeezenet1_1")
    ended = run(
        "predict", "--config", str(root / "configs/imagenet_random.yaml"), *options, "--model.net.weights", "null"
    )
    assert ended.code == 0, ended.err
    assert "the net: 512 features enter the last layer, net.net.classifier.1" in ended.out
    assert "random: 512 features enter the last layer, net.classifier.1" in ended.out


def net_on_meta(name: str) -> TorchvisionNet:
    with torch.device("meta"):
        net = TorchvisionNet(name, weights=None)
    net.normalize = Normalize(MEAN, STD)
    return net


@pytest.mark.parametrize(("name", "resize"), [("vit_h_14", 224), ("vit_b_16", 256), ("swin_t", 232)])
def test_pictures_are_cut_to_the_size_of_a_net_with_random_weights(name: str, resize: int) -> None:
    """The best weights of the largest transformer are for 518 pixels, its own size is 224."""
    net = net_on_meta(name)
    assert (net.preset.image_size, net.preset.resize) == (224, resize)
    assert getattr(net.net, "image_size", 224) == 224


def test_an_untrained_transformer_takes_pictures_of_the_same_size() -> None:
    from torchvision import models

    net = net_on_meta("vit_b_16")
    with torch.device("meta"):
        net.net, net.preset = models.vit_b_16(image_size=384), Preset(384, 384)  # as with its weights of SWAG
        other = net.untrained()
    assert (other.net.image_size, other.preset) == (384, Preset(384, 384))


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
