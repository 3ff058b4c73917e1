"""What robustness curves are tested on: a linear model, whose curves are known, and images for it."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf

from .lightning_programs import OrdinaryModule
from .oracles import LinearModel, images

LINF = Linf(eps=0.12)
PGD_20 = PGD(threat=LINF, num_steps=20)


class Linear(OrdinaryModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = LinearModel(36, 2)  # type: ignore[assignment]


def linear_loader() -> DataLoader:
    """Images far from the ends of the box, every seventh with the wrong label."""
    x = 0.3 + 0.4 * images(80, dtype=torch.float64)
    y = LinearModel(36, 2)(x).argmax(1)
    return DataLoader(TensorDataset(x, torch.where(torch.arange(80) % 7 == 0, 1 - y, y)), 30)
