"""Training steps per second of `Classifier` in a Trainer over plain PyTorch: `python benchmarks/trainer_overhead.py`.

Both loops take the same batches from the same data loader to the same net and optimizer. What counts is the time of
the epochs, without the setting up of the Trainer. The plain loop keeps no figures; `Classifier` measures loss and
accuracy over the epoch.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from timing import ratio, set_up, show, take_turns
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN


class Stopwatch(pl.Callback):
    """Measures from the start of training to its end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        self.seconds -= self.clock()

    def on_train_end(self, *_: Any) -> None:
        self.seconds += self.clock()


def plain(net: nn.Module, loader: DataLoader, num_epochs: int, clock: Callable[[], float]) -> float:
    """The seconds of a loop in plain PyTorch."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    start = clock()
    for _ in range(num_epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return clock() - start


def in_a_trainer(net: nn.Module, loader: DataLoader, num_epochs: int, clock: Callable[[], float]) -> float:
    """The seconds of the same loop in a Trainer."""
    stopwatch = Stopwatch(clock)
    module = Classifier(copy.deepcopy(net), lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=num_epochs,
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            callbacks=[stopwatch],
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, loader)
    return stopwatch.seconds


def main(num_turns: int = 9, num_threads: int | None = None, small: bool = False) -> None:
    """Measures a ResNet-18 on images of 32 x 32, and the digits net, whose steps are short.

    Args:
        num_turns: how often each loop is measured.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        small: whether to shrink everything, to see that it runs.
    """
    from torchvision.models import resnet18

    clock = set_up(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    num_samples, batch_size = (8, 4) if small else (960, 32)
    images = TensorDataset(torch.rand(num_samples, 3, 32, 32), torch.randint(10, (num_samples,)))
    digits = DigitsDataModule()
    digits.setup("fit")
    settings = (
        (f"ResNet-18, batch {batch_size}", resnet18(num_classes=10), DataLoader(images, batch_size, shuffle=True), 1),
        ("SmallCNN(width=64) on digits, batch 64", SmallCNN(width=64), digits.train_dataloader(), 1 if small else 8),
    )
    rows = []
    for name, net, loader, num_epochs in settings:
        loops = {
            loop.__name__: lambda loop=loop, n=net, d=loader, e=num_epochs: loop(n, d, e, clock)
            for loop in (plain, in_a_trainer)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = take_turns(loops, num_turns, clock)
        num_steps = len(loader) * num_epochs
        milliseconds = [f"{1000 * min(seconds[loop]) / num_steps:.2f}" for loop in loops]
        rows.append((name, f"{1 / ratio(seconds, 'in_a_trainer', 'plain'):.3f}", *milliseconds))
    headers = ("", "steps per second over plain", "fastest plain step, ms", "in a Trainer, ms")
    show("Training steps", headers, rows)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
