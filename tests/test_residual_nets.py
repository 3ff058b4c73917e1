"""Nets for small images: the shapes and parameters that the papers give, and weights that others have published."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from touchstone.nets import (
    MLP,
    AdaptedNet,
    AllConvNet,
    CifarResNet,
    Faster,
    Normalized,
    PreActResNet,
    ResNet9,
    ThinResNet,
    WideResNet,
)
from touchstone.nets.cifar_resnet import _Block
from touchstone.nets.imagenet import MEAN, STD
from touchstone.nets.preact_resnet import PreActBlock
from touchstone.nets.thin_resnet import BasicBlock
from touchstone.nets.wide_resnet import WideBlock

from .public_models import cifar_images, resnet20

BLOCKS: dict[str, tuple[Any, int]] = {
    "basic, padded": (lambda n, m, s: BasicBlock(n, m, s), 1),
    "basic, projected": (lambda n, m, s: BasicBlock(n, m, s, shortcut="projection"), 1),
    "basic of CifarResNet": (lambda n, m, s: _Block(n, m, s, bottleneck=False), 1),
    "bottleneck of CifarResNet": (lambda n, m, s: _Block(n, m, s, bottleneck=True), 4),
    "pre-activated": (lambda n, m, s: PreActBlock(n, m, s), 1),
    "pre-activated bottleneck": (lambda n, m, s: PreActBlock(n, m, s, bottleneck=True), 4),
    "wide": (lambda n, m, s: WideBlock(n, m, s, dropout=0.1), 1),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("num_in", "width", "stride"), [(8, 8, 1), (8, 16, 1), (8, 16, 2)])
@pytest.mark.parametrize("side", [8, 7, 1])
def test_a_block_halves_the_image_by_its_stride_and_widens_it(
    name: str, num_in: int, width: int, stride: int, side: int
) -> None:
    make, expansion = BLOCKS[name]
    block = make(num_in, width, stride)
    out = block(torch.randn(2, num_in, side, side))
    assert out.shape == (2, expansion * width, -(-side // stride), -(-side // stride))
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_where_dimensions_agree_the_shortcut_is_the_input_itself(name: str) -> None:
    """With every weight at zero, the branch adds nothing."""
    make, expansion = BLOCKS[name]
    block = make(8 * expansion, 8, 1).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 8 * expansion, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_normalization_stands_before_every_relu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what enters a ReLU, the mean of each channel is 0: that is what BatchNorm gives. After a sum it need not."""
    entered: list[torch.Tensor] = []
    relu = torch.nn.functional.relu

    def seen(x: torch.Tensor, **options: Any) -> torch.Tensor:
        entered.append(x.detach())
        return relu(x, **options)

    monkeypatch.setattr("torch.nn.functional.relu", seen)
    make, expansion = BLOCKS[name]
    make(8 * expansion, 8, 1)(5 + torch.randn(16, 8 * expansion, 4, 4))
    before = entered if "pre" in name or name == "wide" else entered[:-1]  # the others end with one after the sum
    assert before
    assert all(x.mean((0, 2, 3)).abs().max() < 1e-4 for x in before)


NETS: dict[str, tuple[Any, float | None]] = {
    # Millions of parameters: He et al. 2016, table 6; Zagoruyko and Komodakis, tables 4 and 5; pytorch-cifar.
    "ResNet-20": (lambda: ThinResNet(20), 0.27),
    "ResNet-32": (lambda: ThinResNet(32), 0.46),
    "ResNet-44": (lambda: ThinResNet(44), 0.66),
    "ResNet-56": (lambda: ThinResNet(56), 0.85),
    "ResNet-20, projected": (lambda: ThinResNet(20, shortcut="projection"), 0.27),
    "ResNet-18": (lambda: CifarResNet(18), 11.17),
    "ResNet-50": (lambda: CifarResNet(50), 23.52),
    "pre-activated ResNet-18": (lambda: PreActResNet(18), 11.17),
    "pre-activated ResNet-50": (lambda: PreActResNet(50), 23.51),
    "WideResNet-28-10": (lambda: WideResNet(28, 10), 36.5),
    "WideResNet-34-10": (lambda: WideResNet(34, 10), 46.2),
    "AllConvNet": (lambda: AllConvNet(), 1.37),
    "MLP": (lambda: MLP((3, 32, 32)), 0.86),
    "ResNet9": (lambda: ResNet9(), 6.57),
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_has_the_parameters_of_its_paper(name: str) -> None:
    make, millions = NETS[name]
    with torch.device("meta"):
        net = make()
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.02 * millions)


@pytest.mark.parametrize(
    ("net", "side"),
    [
        (ThinResNet(8, num_classes=7, in_channels=1), 4),
        (CifarResNet(18, num_classes=7), 32),
        (PreActResNet(18, num_classes=7, in_channels=1), 8),
        (WideResNet(10, 2, num_classes=7, in_channels=1, dropout=0.3), 5),
        (AllConvNet(7, in_channels=1, width=8), 5),
        (MLP((1, 5, 5), (6,), num_classes=7), 5),
        (ResNet9(7, in_channels=1, widths=(4, 8, 8, 8)), 8),
        (Normalized(ResNet9(7, widths=(4, 8, 8, 8)), MEAN, STD), 12),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_small_images_become_logits_and_every_weight_gets_a_gradient(net: nn.Module, side: int) -> None:
    channels = next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 1)
    logits = net(torch.rand(2, channels, side, side))
    assert logits.shape == (2, 7)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_published_weights_of_resnet20_reach_their_figure(shared: Path) -> None:
    """Published: 91.73 % on all 10,000 test images."""
    net = resnet20(shared)
    x, y = cifar_images(shared, 1000)
    with torch.no_grad():
        right = sum(
            int((net(some).argmax(1) == labels).sum()) for some, labels in zip(x.split(250), y.split(250), strict=True)
        )
    assert right == pytest.approx(915, abs=2)


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("resnet18", {}, 32),
        ("resnet18", {"in_channels": 1, "small": False}, 64),
        ("mobilenet_v3_small", {"in_channels": 1}, 32),
        ("densenet121", {}, 32),
        ("squeezenet1_1", {}, 32),
        ("shufflenet_v2_x0_5", {}, 32),
    ],
)
def test_a_model_of_torchvision_takes_small_images_and_few_classes(name: str, options: Any, side: int) -> None:
    net = AdaptedNet(name, num_classes=7, **options)
    x = torch.rand(2, options.get("in_channels", 3), side, side)
    assert net(x).shape == (2, 7)
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    assert (first.stride == (1, 1)) == options.get("small", True)


@pytest.mark.parametrize(
    ("name", "options", "pooling"),
    [
        ("resnet18", {}, "maxpool"),
        ("densenet121", {}, "features.pool0"),
        ("squeezenet1_1", {}, "features.2"),
        ("googlenet", {"init_weights": False, "aux_logits": False}, "maxpool1"),
        ("vgg13", {}, None),  # a second convolution stands between
    ],
)
def test_small_images_meet_no_pooling_right_behind_the_first_convolution(
    name: str, options: Any, pooling: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_model", partial(models.get_model, **options))
    with torch.device("meta"):
        whole, net = (AdaptedNet(name, num_classes=7, small=small) for small in (False, True))
        of_whole, of_net = (
            {path for path, part in net.net.named_modules() if isinstance(part, nn.MaxPool2d)} for net in (whole, net)
        )
        assert of_whole - of_net == ({pooling} if pooling else set())
        assert of_net <= of_whole
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_patches_stay_patches() -> None:
    net = AdaptedNet("vit_b_32", num_classes=7, in_channels=1)
    assert net(torch.rand(1, 1, 224, 224)).shape == (1, 7)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_faster_computes_the_same_with_the_same_names_of_weights(compile: bool) -> None:
    torch.manual_seed(0)
    plain = ThinResNet(8).eval()
    fast = Faster(ThinResNet(8), compile=compile).eval()
    fast.load_state_dict({f"net.{name}": value for name, value in plain.state_dict().items()})
    x = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(fast(x), plain(x), atol=1e-5)
    assert fast.net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThinResNet(21), "must be 6 n \\+ 2.*got 21"),
        (lambda: ThinResNet(20, shortcut="none"), "'pad', 'projection', got 'none'"),  # type: ignore[arg-type]
        (lambda: PreActResNet(20), "one of 18, 34, 50, 101, got 20"),
        (lambda: WideResNet(20), "must be 6 n \\+ 4.*got 20"),
        (lambda: WideResNet(16, 1), "width=.* >= 2, got 1"),
        (lambda: WideResNet(16, 2, dropout=1.0), r"dropout=.* in \[0, 1\), got 1.0"),
        (lambda: MLP((3, 0)), ">= 1 each, got"),
        (lambda: ResNet9(scale=0), "scale=.* > 0 and finite, got 0"),
        (lambda: AdaptedNet("resnet19"), "the nearest resnet"),
    ],
)
def test_a_value_outside_its_range_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
