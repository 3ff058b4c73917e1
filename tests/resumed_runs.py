"""A small experiment with everything that a resumed run could get wrong, and what is left of a run at its end."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from .command_lines import TINY

NUM_EPOCHS, NUM_BATCHES = 3, 7
PARTS = """
import random, signal
import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from touchstone.datamodules import DigitsDataModule

class Noisy(Dataset):
    def __init__(self, data):
        self.data = data
    def __len__(self):
        return 7 * 8
    def __getitem__(self, number):
        x, y = self.data[number]
        noise = torch.rand(()) + float(np.random.rand()) + random.random()  # as three kinds of augmentation draw
        return (x + 0.1 * noise * torch.rand_like(x)).clamp(0, 1), y

class NoisyDigits(DigitsDataModule):
    def __init__(self, num_workers: int = 0):
        super().__init__()
        self.workers = num_workers
    def train_dataloader(self):
        return DataLoader(Noisy(self.train), 8, shuffle=True, num_workers=self.workers)

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(),
                         torch.nn.Dropout(0.3), torch.nn.Linear(16, 10))

class StopAt(pl.Callback):
    def __init__(self, step: int = 0, in_validation: bool = False):
        self.step, self.in_validation = step, in_validation
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and not self.in_validation:
            self.step = -1
            signal.raise_signal(signal.SIGTERM)
    def on_validation_start(self, trainer, module):
        if trainer.global_step >= self.step and self.in_validation:
            signal.raise_signal(signal.SIGTERM)
            self.in_validation = False
"""


def config(num_workers: int = 0, **trainer: Any) -> dict[str, Any]:
    given = copy.deepcopy(TINY)
    del given["trainer"]["limit_train_batches"]
    given["trainer"].update(max_epochs=NUM_EPOCHS, **trainer)
    checkpoints = {"filename": "last", "enable_version_counter": False}
    of_each = {"filename": "at{step}", "monitor": "val/loss", "save_top_k": -1, "enable_version_counter": False}
    given["trainer"]["callbacks"] += [
        {"class_path": "touchstone.callbacks.GradientNorm"},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoints},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": of_each},
    ]
    model = given["model"]["init_args"]
    model["net"] = {"class_path": "mine.Net"}
    model["lr_scheduler"] = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    given["data"] = {"class_path": "mine.NoisyDigits", "init_args": {"num_workers": num_workers}}
    return given


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, of files in the order in which they were written.

    TensorBoard goes by their names, in which those that one process writes within a second have the numbers 9 and 10.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TemporaryDirectory() as copies:
        written = sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns)
        for number, file in enumerate(written):
            shutil.copy(file, Path(copies, f"events.out.tfevents.{number:03}"))
        events = EventAccumulator(copies, size_guidance={"scalars": 0}).Reload()
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def what_is_left(folder: Path) -> dict[str, Any]:
    """Weights, optimizer, verdicts, figures and curves at the end of the run in a folder."""
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    report = json.loads((folder / "report.json").read_text())
    for attack in report["attacks"].values():
        attack.pop("seconds")
    return {
        "weights": stored["state_dict"],
        "optimizer": stored["optimizer_states"],
        "schedulers": stored["lr_schedulers"],
        "steps": stored["global_step"],
        "report": report,
        "verdicts": {name: column.tolist() for name, column in np.load(folder / "verdicts.npz").items()},
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "curves": _curves(folder),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other or one != one and other != other
