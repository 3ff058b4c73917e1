"""Whether anything grows over 2,000 validations with twelve callbacks: `python benchmarks/long_run.py`.

A tiny net on digits, one training step between two validations. After each validation: the resident memory, the open
files, the hooks on modules, the tensors that are alive, and the bytes of TensorBoard's files.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from statistics import median

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from timing import show, use_threads
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from touchstone.attacks import FGSM, PGD, Linf
from touchstone.callbacks import (
    AugmentationGallery,
    CatastrophicOverfitting,
    DeepDream,
    ExactResume,
    GradientNorm,
    Health,
    LogsMayFail,
    NotFinite,
    RobustAccuracy,
    RobustnessCurves,
    Saturation,
)
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier

THREAT = Linf(eps=0.1)


@dataclass(frozen=True)
class Seen:
    """What there is after a validation.

    Attributes:
        validation: its number, from 1.
        memory: resident, in MB.
        files: open ones.
        hooks: on modules of the net.
        tensors: alive.
        events: bytes in TensorBoard's files.
    """

    validation: int
    memory: float
    files: int
    hooks: int
    tensors: int
    events: int


class Watch(pl.Callback):
    """Looks after every n-th validation, when the other callbacks are done with it."""

    def __init__(self, every: int) -> None:
        self.every, self.seen, self._number = every, list[Seen](), 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._number += 1
        if self._number % self.every:
            return
        for logger in trainer.loggers:
            logger.save()
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        folder = Path(trainer.log_dir or "")
        self.seen.append(
            Seen(
                validation=self._number,
                memory=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
                files=len(os.listdir("/proc/self/fd")),
                hooks=sum(_num_hooks(module) for module in pl_module.modules()),
                tensors=sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()),
                events=sum(path.stat().st_size for path in folder.glob("events.*")),
            )
        )


def _num_hooks(module: nn.Module) -> int:
    return sum(len(value) for name, value in vars(module).items() if name.endswith("_hooks") and value)


def measure(folder: Path, num_validations: int, every: int, pictures_every: int = 500) -> list[Seen]:
    """What is seen at every n-th of so many validations, with twelve callbacks that measure or guard a training."""
    torch.manual_seed(0)
    data = DigitsDataModule()
    data.setup("fit")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    module = Classifier(net, lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    attacks = {"fgsm": FGSM(threat=THREAT), "pgd": PGD(threat=THREAT, num_steps=2)}
    watch = Watch(every)
    callbacks = [
        RobustAccuracy(attacks, num_images=2, images_every_n_epochs=pictures_every, warm_start=True),
        GradientNorm(),
        Saturation(),
        RobustnessCurves(attack=attacks["pgd"], eps=[0.05, 0.1], steps=[1, 2], every_n_epochs=pictures_every),
        DeepDream(["net.1"], options={"num_steps": 2}, num_pictures=1, every_n_epochs=pictures_every),
        CatastrophicOverfitting(THREAT, num_steps=2, max_gap=0.99),
        AugmentationGallery({"as it is": nn.Identity()}),
        Health(),
        NotFinite(),
        ExactResume(),
        LogsMayFail(),
        watch,
        ModelCheckpoint(every_n_epochs=pictures_every, filename="last", enable_version_counter=False),
    ]
    trainer = pl.Trainer(
        max_epochs=num_validations,
        accelerator="cpu",
        devices=1,
        logger=TensorBoardLogger(folder, name="", version=0, default_hp_metric=False),
        callbacks=callbacks,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(Subset(data.train, range(32)), 32), DataLoader(Subset(data.val, range(32)), 32))
    return watch.seen


def draw(seen: list[Seen], path: Path) -> None:
    """Draws each figure over the validations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.2), dpi=80, layout="constrained")
    panels = {
        "resident memory (MB)": [one.memory for one in seen],
        "open files": [one.files for one in seen],
        "hooks on modules": [one.hooks for one in seen],
        "tensors alive": [one.tensors for one in seen],
        "kB of events per validation": _growth(seen),
    }
    for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.plot([one.validation for one in seen[len(seen) - len(values) :]], values)
        axes.set(title=title, xlabel="validation")
        axes.set_ylim(bottom=0, top=1.3 * max(max(values), 1))
        axes.grid(alpha=0.25)
    figure.savefig(path)


def _growth(seen: list[Seen]) -> list[float]:
    """Kilobytes of events per validation, between two looks."""
    return [(b.events - a.events) / (b.validation - a.validation) / 1e3 for a, b in pairwise(seen)]


def main(
    num_validations: int = 2000, every: int = 20, num_threads: int | None = None, picture: str | None = None
) -> None:
    """Prints what there is at the beginning, in the middle and at the end of a long run.

    Args:
        num_validations: how many, >= 3 times `every`.
        every: validations between two looks.
        num_threads: of torch; None for its own choice.
        picture: file to draw everything into; None for none.
    """
    use_threads(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        seen = measure(Path(folder), num_validations, every)
    parts = {"first fifth": seen[: len(seen) // 5 or 1], "last fifth": seen[-(len(seen) // 5 or 1) :]}
    parts = {"first look": seen[:1], **parts, "last look": seen[-1:]}
    rows = [
        [name, *(f"{median(getattr(one, field.name) for one in part):,.0f}" for field in fields(Seen))]
        for name, part in parts.items()
    ]
    growth = _growth(seen)
    share = len(growth) // 5 or 1
    show(f"{num_validations} validations with twelve callbacks (medians)", ["", *(f.name for f in fields(Seen))], rows)
    print(f"kB of events per validation: {median(growth[:share]):.2f} at first, {median(growth[-share:]):.2f} at last")
    if picture is not None:
        draw(seen, Path(picture))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
