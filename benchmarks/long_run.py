"""Whether anything grows over 2,000 validations with all callbacks: `python benchmarks/long_run.py`.

Three tiny nets one after another, a training step between two validations; `long_runs_of.py` says which callbacks
measure which. After each n-th validation: the resident memory, the open files, the hooks on modules, the tensors that
are alive, and what TensorBoard's files have grown by.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from long_runs_of import KINDS, Run
from timing import set_up, show
from torch import Tensor, nn

from touchstone.callbacks import ExactResume, GradientNorm, Health, LogsMayFail, NotFinite, RunRecord
from touchstone.cli.stop_after_step import StopAfterStep
from touchstone.cli.stopping import Stopping


@dataclass(frozen=True)
class Seen:
    """What there is after a validation.

    Attributes:
        validation: its number, from 1.
        memory: resident, in MB.
        files: open ones.
        hooks: on modules of the net.
        tensors: alive.
        events: kB in TensorBoard's files for each validation since the look before, or since the first validation,
            which shows what is shown once.
    """

    validation: int
    memory: float
    files: int
    hooks: int
    tensors: int
    events: float


TITLES = {
    "memory": "resident memory (MB)",
    "files": "open files",
    "hooks": "hooks on modules",
    "tensors": "tensors alive",
    "events": "kB of events per validation",
}


class Watch(pl.Callback):
    """Looks after every n-th validation, n >= 2, when the other callbacks are done with it."""

    def __init__(self, every: int) -> None:
        self.every, self.seen = every, list[Seen]()
        self._number, self._before = 0, (0, 0.0)  # the validation of the last look, and the kB of events there

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._number += 1
        if self._number > 1 and self._number % self.every:
            return
        for logger in trainer.loggers:
            logger.save()
        (number, kilobytes), folder = self._before, Path(trainer.log_dir or "")
        self._before = self._number, sum(path.stat().st_size for path in folder.glob("events.*")) / 1e3
        if self._number == 1:
            return
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.seen.append(
            Seen(
                validation=self._number,
                memory=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
                files=len(os.listdir("/proc/self/fd")),
                hooks=sum(_num_hooks(module) for module in pl_module.modules()),
                tensors=sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()),
                events=(self._before[1] - kilobytes) / (self._number - number),
            )
        )


def _num_hooks(module: nn.Module) -> int:
    """Those that passes meet; one on loading, as of the classifier, stands there from the beginning."""
    kept = {name: value for name, value in vars(module).items() if name.endswith("_hooks") and "state_dict" not in name}
    return sum(len(value) for value in kept.values() if value)


def measure(folder: Path, kind: str, num_validations: int, every: int, pictures_every: int | None = None) -> list[Seen]:
    """What is seen at every n-th of so many validations of a run, with pictures at the looks if not said otherwise."""
    pictures_every = pictures_every or every
    torch.manual_seed(0)
    run, watch = KINDS[kind](folder, pictures_every), Watch(every)
    trainer = pl.Trainer(
        max_epochs=num_validations,
        limit_train_batches=1,
        limit_val_batches=1,
        accelerator="cpu",
        devices=1,
        logger=TensorBoardLogger(folder, name="", version=0, default_hp_metric=False),
        callbacks=callbacks_of(run, watch, pictures_every),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(run.module, run.data)
    return watch.seen


def callbacks_of(run: Run, watch: Watch, checkpoints_every: int) -> list[pl.Callback]:
    """Those of the run, and those of every run that `train.py` starts."""
    parser = LightningArgumentParser()
    return [
        *run.callbacks,
        GradientNorm(),
        Health(),
        NotFinite(),
        ExactResume(),
        LogsMayFail(),
        StopAfterStep(Stopping()),
        RunRecord(parser, parser.parse_args([])),
        watch,
        ModelCheckpoint(every_n_epochs=checkpoints_every, filename="last", enable_version_counter=False),
    ]


def draw(seen: dict[str, list[Seen]], path: Path) -> None:
    """Draws each figure over the validations, a row for each kind of run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 0.6 + 2.2 * len(seen)), dpi=80, layout="constrained")
    grid = figure.subplots(len(seen), len(TITLES), squeeze=False)
    for row, (kind, looks) in zip(grid, seen.items(), strict=True):
        row[0].set_ylabel(kind, fontsize=13)
        for axes, name in zip(row, TITLES, strict=True):
            values = [getattr(look, name) for look in looks]
            axes.plot([look.validation for look in looks], values)
            axes.set_ylim(bottom=0, top=1.3 * max(*values, 1))
            axes.grid(alpha=0.25)
    for column, title in zip(grid.T, TITLES.values(), strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel("validation")
    figure.savefig(path)


def main(
    num_validations: int = 2000, every: int = 20, num_threads: int | None = None, picture: str | None = None
) -> None:
    """Prints what there is at the beginning and at the end of a long run of each kind.

    Args:
        num_validations: how many, >= 3 times `every`.
        every: validations between two looks, and between two pictures of a callback, >= 2.
        num_threads: of torch; None for its own choice.
        picture: file to draw everything into; None for none.
    """
    set_up(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seen = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            seen[kind] = looks = measure(Path(folder), kind, num_validations, every)
        fifth = len(looks) // 5 or 1
        parts = {"first look": looks[:1], "first fifth": looks[:fifth], "last fifth": looks[-fifth:]}
        rows = [
            [name, *(f"{median(getattr(look, field.name) for look in part):,.4g}" for field in fields(Seen))]
            for name, part in {**parts, "last look": looks[-1:]}.items()
        ]
        headers = ["", "validation", *TITLES.values()]
        show(f"{kind}: {num_validations} validations with all callbacks (medians)", headers, rows)
    if picture is not None:
        draw(seen, Path(picture))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
