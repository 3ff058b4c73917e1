"""Fits of small nets on images around four centres, and what `Health` says of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import Health
from touchstone.lightning_modules import Classifier, Strategy

from .lightning_programs import trainer


def blobs(num_samples: int, seed: int, noise: float = 0.1) -> TensorDataset:
    """Images around one of four, `(N, 1, 4, 4)`."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(num_samples) % 4
    return TensorDataset((centres[y] + noise * torch.randn(num_samples, 1, 4, 4, generator=generator)).clamp(0, 1), y)


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 64), activation(), nn.Linear(64, 4))


def fit(
    folder: Path,
    net: nn.Module,
    *callbacks: pl.Callback,
    train: TensorDataset | None = None,
    val: TensorDataset | None = None,
    strategy: Strategy | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 0.01,
    num_epochs: int = 10,
) -> tuple[Health, str]:
    """What a fit's health is, and what was said meanwhile."""
    health = Health()
    run = trainer(folder, health, *callbacks, max_epochs=num_epochs, num_sanity_val_steps=0)
    module = Classifier(net, lambda p: optimizer(p, lr=lr), strategy=strategy)
    torch.manual_seed(1)
    loaders = DataLoader(train or blobs(80, 1), 16, shuffle=True), DataLoader(val or blobs(40, 2), 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(module, *loaders)
    return health, " ".join(str(warning.message) for warning in caught if "health" in str(warning.message))
