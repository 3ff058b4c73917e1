"""A recurrent net whose Jacobians are powers of a number, and sequences for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.nets import RNN


class LastOutput(nn.Module):
    """A recurrent net that classifies sequences by its last output."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.recurrent = RNN(1, 6, nonlinearity="relu")
        self.read_out = nn.Linear(6, 2)
        self.recurrent.weight_hh_l0.data = scale * torch.eye(6)  # with relu and inputs > 0: powers of the scale
        self.recurrent.weight_ih_l0.data.abs_()
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(self.recurrent, name).data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.recurrent(x)[0][:, -1])


def sequences() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 12, 1, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum((1, 2)) > 6).long()), 4)
