"""Small Lightning programs written the ordinary way, to try callbacks on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.lightning_modules import Classifier

from .oracles import images, own_labels, small_net


class OrdinaryModule(pl.LightningModule):
    """Somebody else's module: convolution, BatchNorm, dropout, SGD."""

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        self.net = small_net(seed)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def _loss(self, batch: Any) -> Tensor:
        x, y = batch if isinstance(batch, (tuple, list)) else (batch["image"], batch["label"])
        return F.cross_entropy(self(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self._loss(batch))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("test_loss", self._loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Still(OrdinaryModule):
    """Trains, and stays what it is."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.net.eval()
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Diverged(Classifier):
    """A net whose weights are no numbers any more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


def samples(num_samples: int, seed: int = 0) -> TensorDataset:
    x = images(num_samples, seed=seed)
    return TensorDataset(x, own_labels(small_net(seed=7), x))


def train_loader(batch_size: int = 8) -> DataLoader:
    return DataLoader(samples(40, seed=1), batch_size, shuffle=True)


def val_loader(batch_size: int = 10) -> DataLoader:
    return DataLoader(samples(23, seed=2), batch_size)


class Loaders(pl.LightningDataModule):
    """Images, in three batches for validation and test and five for training."""

    def train_dataloader(self) -> DataLoader:
        return train_loader()

    def val_dataloader(self) -> DataLoader:
        return val_loader()

    test_dataloader = val_dataloader


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "logger": TensorBoardLogger(folder, name="run", default_hp_metric=False),
        "callbacks": list(callbacks),
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 1,
    }
    return pl.Trainer(**{**settings, **options})


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def total_norm_by_hand(module: nn.Module) -> float:
    """Of all gradients that there are."""
    return sum(float((p.grad.abs().double() ** 2).sum()) for p in module.parameters() if p.grad is not None) ** 0.5


def events(folder: Path) -> Any:
    """Everything that TensorBoard would show of the runs below `folder`, of the newest version."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    newest = sorted(folder.rglob("version_*"))[-1]
    accumulator = EventAccumulator(str(newest), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def seen_tags(folder: Path) -> set[str]:
    """The tags that TensorBoard shows of the runs below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: set[str] = set()
    for file in folder.rglob("events.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        tags = events.Tags()
        seen |= {*tags["scalars"], *tags["images"], *(tag.removesuffix("/text_summary") for tag in tags["tensors"])}
    return seen
