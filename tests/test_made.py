"""`device` and `dtype` of layers of sequences, beside torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from touchstone.nets.attention import Attention
from touchstone.nets.recurrent import LSTM
from touchstone.nets.transformer import FeedForward, TransformerBlock

from .recurrent_pairs import CASES, LAYERS, B, D, H, T, assert_equal, every_cell


@every_cell
def test_parameters_are_made_where_and_as_what_torch_makes_them(case: str) -> None:
    own, of_torch, extra = CASES[case]
    for options in ({"dtype": torch.float64}, {"device": "meta"}, {"device": torch.device("cpu"), "dtype": torch.half}):
        net, oracle = (kind(D, H, LAYERS, batch_first=True, **extra, **options) for kind in (own, of_torch))
        for (name, found), (other, expected) in zip(net.named_parameters(), oracle.named_parameters(), strict=True):
            assert (name, found.shape, found.dtype, found.device) == (
                other,
                expected.shape,
                expected.dtype,
                expected.device,
            )
    x = torch.randn(B, T, D, dtype=torch.float64)
    net, oracle = (kind(D, H, batch_first=True, **extra, dtype=torch.float64) for kind in (own, of_torch))
    oracle.load_state_dict(net.state_dict())
    assert_equal(net(x)[0], oracle(x)[0])


@pytest.mark.parametrize("make", [LSTM, Attention, TransformerBlock, FeedForward])
def test_no_device_and_no_floating_point_are_refused(make: Any) -> None:
    name = make.__name__
    for device in ("gpu", 1.5):
        with pytest.raises(ValueError, match=rf"^{name}\(device=...\) must be a device of torch, as .* got"):
            make(8, 2, device=device)
    for dtype in (torch.int64, "double"):
        with pytest.raises(ValueError, match=rf"^{name}\(dtype=...\) must be a floating point dtype, .* got"):
            make(8, 2, dtype=dtype)


@pytest.mark.parametrize("feed_forward", ["linear", "conv"])
def test_a_block_is_made_where_and_as_what_torch_makes_its_own(feed_forward: Any) -> None:
    for device, dtype in ((None, torch.float64), ("meta", None)):
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        oracle = nn.TransformerEncoderLayer(8, 2, **options)
        block = TransformerBlock(8, 2, feed_forward=feed_forward, **options)
        found, expected = ({(p.device, p.dtype) for p in module.parameters()} for module in (block, oracle))
        assert found == expected
