"""Nets made from one seed, what their gates give, and what a validation says of how far their units saturate."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import Saturation
from touchstone.lightning_modules import Classifier
from touchstone.nets import GRU, LSTM, RNN
from touchstone.nets.parts.gates import Gates

from .lightning_programs import trainer


def seeded(make):  # type: ignore[no-untyped-def]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double()


def gates_of(net: RNN | LSTM | GRU, x: Tensor) -> dict[str, tuple[str, Tensor]]:
    found: dict[str, tuple[str, Tensor]] = {}
    gates = Gates(net, lambda name, kind, values: found.update({name: (kind, values)}))
    net(x)
    gates.remove()
    net(2 * x)  # nobody listens any more
    return found


def measured(callback: Saturation, net: nn.Module, x: Tensor, folder: Path) -> dict[str, float]:
    run = trainer(folder, callback)
    data = DataLoader(TensorDataset(x, torch.zeros(len(x), dtype=torch.int64)), 2)
    run.validate(Classifier(net), data, verbose=False)
    return {tag: float(value) for tag, value in run.callback_metrics.items() if tag.startswith("saturation/")}
