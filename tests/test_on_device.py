"""What callbacks bring to the device of the trained net can have gradients there, in inference mode too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from touchstone.callbacks.parts.passes.normalized import NormalizedBatches
from touchstone.callbacks.parts.passes.on_device import on_device

ELSEWHERE = torch.device("meta")  # another device that every machine has


def brought(net: nn.Module) -> nn.Module:
    return on_device(net, ELSEWHERE)


def from_pixels(net: nn.Module) -> nn.Module:
    return NormalizedBatches(((0.5,), (0.2,)), "Test").of_pixels(on_device(net, ELSEWHERE), ELSEWHERE)


@pytest.mark.parametrize("bring", [brought, from_pixels])
def test_weights_can_have_gradients(bring: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with torch.inference_mode():
        there = bring(net)
    state = [*there.parameters(), *there.buffers()]
    assert {tensor.device for tensor in state} == {ELSEWHERE}
    assert not any(tensor.is_inference() for tensor in state)


def test_it_is_the_net_itself() -> None:
    net = nn.Linear(2, 2)
    assert on_device(net, ELSEWHERE) is net
