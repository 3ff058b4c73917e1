"""Receptive fields where positions are taken apart: attention, transformers, recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.nets.receptive_field import receptive_fields
from touchstone.nets.recurrent import GRU, LSTM, RNN

from .oracles import seen_by_gradient


def test_attention_has_a_record_and_sees_everything() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 8, 3)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0]

    records = {record.name: record for record in receptive_fields(Attends(), 12)}
    assert records["conv"].centre_sees == ((5, 7), (5, 7))
    assert (records["attention"].kind, records["attention"].output_size) == ("MultiheadAttention", (10, 10))
    assert records["attention"].centre_sees == ((1, 12), (1, 12))
    x = torch.rand(1, 2, 12, 12, requires_grad=True)
    (grad,) = torch.autograd.grad(Attends().eval()(x)[0, 44].sum(), x)  # the token in the middle of 10 x 10
    assert bool((grad.abs().sum(1) > 0).all())


def test_positions_that_a_mask_chooses_count_as_one_unit() -> None:
    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv1d(1, 3, 3), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x)[:, :, torch.arange(14) % 2 == 0])

    record = receptive_fields(Masks(), 16)[-1]
    assert (record.name, record.output_size, record.centre_sees) == ("linear", (), ((1, 16),))


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 16, 32)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], stochastic_depth_prob=0.0)


def max_vit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((32, 32), 8, 2, [8, 8], [1, 1], 4, 0.0)


@pytest.mark.parametrize(
    ("make", "stem", "head"),
    [
        (vision_transformer, "conv_proj", "heads.head"),
        (swin, "features.0.0", "head"),
        (max_vit, "stem.0.0", "classifier.5"),
    ],
)
def test_nets_that_take_positions_apart_are_followed_to_their_end(
    make: Callable[[], nn.Module], stem: str, head: str
) -> None:
    records = {record.name: record for record in receptive_fields(make(), 32)}
    assert list(records[stem].centre_sees) == seen_by_gradient(make(), stem, (3, 32, 32))
    assert (records[head].output_size, records[head].centre_sees) == ((), ((1, 32), (1, 32)))
    net, x = make().eval(), torch.rand(1, 3, 32, 32, requires_grad=True)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    (grad,) = torch.autograd.grad(net(x)[0, 0], x)
    rows, columns = (grad.abs().sum((0, 1, axis)).nonzero()[:, 0] + 1 for axis in (3, 2))
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (1, 32, 1, 32)


@pytest.mark.parametrize("kind", [nn.LSTM, RNN, LSTM, GRU])
def test_a_recurrent_layer_counts_as_one_unit(kind: Any) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm = nn.Conv1d(1, 3, 3), kind(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(self.conv(x).transpose(1, 2))[0]

    record = receptive_fields(Reads(), 16)[-1]
    assert (record.name, record.output_size, record.centre_sees) == ("lstm", (), ((1, 16),))
