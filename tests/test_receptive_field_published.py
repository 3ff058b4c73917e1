"""What whole nets see, against the table of Araujo, Norris and Sim, "Computing receptive fields", Distill, 2019."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from touchstone.nets.receptive_field import receptive_fields


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1, and a way around."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inside = after // 4
        self.around = nn.Conv2d(before, after, 1, stride) if before != after else nn.MaxPool2d(1, stride)
        self.through = nn.Sequential(
            nn.Conv2d(before, inside, 1), nn.Conv2d(inside, inside, 3, stride, 1), nn.Conv2d(inside, after, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.around(x) + self.through(x)


def resnet(*depths: int) -> nn.Module:
    """The ResNet of the table, whose stages but the last end in their stride."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for stage, depth in enumerate(depths):
        after = 256 * 2**stage
        for number in range(depth):
            layers.append(Bottleneck(before, after, 2 if number == depth - 1 and stage < 3 else 1))
            before = after
    return nn.Sequential(*layers)


def mobilenet_v1() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1)]
    before = 32
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for after, stride in zip((64, *[128] * 2, *[256] * 2, *[512] * 6, *[1024] * 2), strides, strict=True):
        layers += [nn.Conv2d(before, before, 3, stride, 1, groups=before), nn.Conv2d(before, after, 1)]
        before = after
    return nn.Sequential(*layers)


def inception_v3() -> nn.Module:
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, init_weights=False, aux_logits=False)
    net.avgpool = net.fc = nn.Identity()  # which see all, or nothing with axes
    return net


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: resnet(3, 4, 6, 3), 483),
        (lambda: resnet(3, 4, 23, 3), 1027),
        (lambda: resnet(3, 8, 36, 3), 1507),
        (lambda: resnet(3, 24, 36, 3), 1763),
        (mobilenet_v1, 315),
        (inception_v3, 1311),
    ],
    ids=["resnet_v1_50", "resnet_v1_101", "resnet_v1_152", "resnet_v1_200", "mobilenet_v1", "inception_v3"],
)
def test_the_last_layer_sees_what_is_published(make: Callable[[], nn.Module], field: int) -> None:
    with torch.device("meta"):  # no weights are needed
        net = make()
    seen = receptive_fields(net, 299)[-1]
    assert seen.receptive_field == (field, field)
    assert seen.effective_stride == (32, 32)
