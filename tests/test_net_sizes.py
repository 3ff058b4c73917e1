"""A net of one class, which would always be right, and layers without units are refused; how small an image may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.nets import (
    MLP,
    AdaptedNet,
    AirbenchNet,
    AllConvNet,
    CifarResNet,
    HandmadeNet,
    NewHead,
    PreActResNet,
    ResNet2b,
    ResNet9,
    SetClassifier,
    SmallCNN,
    TextClassifier,
    ThinResNet,
    WideResNet,
)

NETS: list[Callable[..., nn.Module]] = [
    AirbenchNet, AllConvNet, CifarResNet, HandmadeNet, PreActResNet,
    ResNet2b, ResNet9, SmallCNN, ThinResNet, WideResNet,
]  # fmt: skip


@pytest.mark.parametrize("make", NETS)
def test_one_class_is_refused(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}\(num_classes=...\) must be >= 2, got 1"):
        make(num_classes=1)


@pytest.mark.parametrize("make", [AirbenchNet, AllConvNet, PreActResNet, ResNet9, ThinResNet, WideResNet])
def test_the_smallest_image_is_the_one_that_is_documented(make: Callable[..., nn.Module]) -> None:
    (smallest,) = map(int, re.findall(r"H and W >= (\d+)", make.__doc__ or ""))
    net, x = make(), torch.rand(2, 3, smallest, smallest)
    assert net(x).shape == net.eval()(x[:1]).expand(2, -1).shape == (2, 10)
    if smallest > 1:
        with pytest.raises(RuntimeError, match="[Oo]utput size|Kernel size"):
            net(x[..., 1:, 1:])
    alone = re.findall(r"larger than (\d+) x", make.__doc__ or "")
    for side in map(int, alone):
        net.train()(torch.rand(1, 3, side + 1, side + 1))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(torch.rand(1, 3, side, side))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((3, 8, 8), num_classes=1), r"MLP\(num_classes=...\) must be >= 2, got 1"),
        (lambda: NewHead(SmallCNN(), 1), r"NewHead\(num_classes=...\) must be >= 2, got 1"),
        (lambda: AdaptedNet("resnet18", num_classes=0), r"AdaptedNet\(num_classes=...\) must be >= 2, got 0"),
        (lambda: TextClassifier(10, 1), r"TextClassifier\(num_classes=...\) must be >= 2, got 1"),
        (lambda: SetClassifier(3, 1), r"SetClassifier\(num_classes=...\) must be >= 2, got 1"),
        (lambda: AllConvNet(width=0), r"AllConvNet\(width=...\) must be >= 1, got 0"),
        (lambda: ThinResNet(in_channels=0), r"ThinResNet\(in_channels=...\) must be >= 1, got 0"),
    ],
)
def test_what_is_too_small_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
