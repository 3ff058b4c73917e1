"""`RNN`, `LSTM`, `GRU` beside torch's own with the same weights, and what both are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.nets.recurrent import GRU, LSTM, RNN

CASES = {
    "rnn": (RNN, nn.RNN, {}),
    "relu": (RNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (LSTM, nn.LSTM, {}),
    "gru": (GRU, nn.GRU, {}),
}
every_cell = pytest.mark.parametrize("case", CASES)
B, T, D, H, LAYERS = 3, 7, 4, 5, 2
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def pair(case: str, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, nn.RNNBase]:
    """One of ours with the weights of one of torch's."""
    torch.manual_seed(0)
    own, of_torch, extra = CASES[case]
    oracle = of_torch(D, H, LAYERS, batch_first=True, **extra).to(dtype)
    net = own(D, H, LAYERS, **extra, **options).to(dtype)
    net.load_state_dict(oracle.state_dict())
    return net, oracle


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def inputs(case: str, dtype: torch.dtype = torch.float64, num_steps: int = T) -> tuple[Tensor, Any]:
    """A batch of sequences and an initial state, both of which want gradients."""
    torch.manual_seed(1)
    parts = [torch.randn(LAYERS, B, H, dtype=dtype, requires_grad=True) for _ in range(1 + (case == "lstm"))]
    x = torch.randn(B, num_steps, D, dtype=dtype, requires_grad=True)
    return x, tuple(parts) if case == "lstm" else parts[0]


def assert_equal(own: Any, expected: Any, dtype: torch.dtype = torch.float64) -> None:
    torch.testing.assert_close(own, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
