"""How cost and communication grow with the processes: `python benchmarks/scaling.py`.

1, 2 and 4 processes on the cores of this machine (gloo), each with the same number of samples per training step; the
samples of the evaluation are divided among them. CPU seconds count, since more processes than cores take turns.
"""

from __future__ import annotations

import json
import logging
import pickle
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from timing import show
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import RobustAccuracy
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN


class Count(pl.Callback):
    """Writes what each process has spent, and what it has given to the others, as `RANK.json` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reduced = folder, [0]
        self.of_steps, self.bytes_of_steps = list[float](), list[int]()
        self.evaluation, self.gathered = 0.0, 0
        self._began, self._reduced_before = 0.0, 0

    def hook(self, state: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Averages gradients as DDP does, and counts their bytes."""
        self.reduced[0] += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None: all processes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(trainer.model, DistributedDataParallel):  # Lightning gives such hooks to GPUs alone
            # torch reads annotations, and does not know those that are texts.
            trainer.model.register_comm_hook(self.reduced, lambda state, bucket: self.hook(state, bucket))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._began, self._reduced_before = time.process_time(), self.reduced[0]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.of_steps.append(time.process_time() - self._began)
        self.bytes_of_steps.append(self.reduced[0] - self._reduced_before)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, gather, self.gathered = time.process_time(), dist.all_gather_object, 0

        def counted(parts: list[Any], mine: Any, *args: Any) -> None:
            self.gathered += len(pickle.dumps(mine))
            gather(parts, mine, *args)

        self._gather, dist.all_gather_object = gather, counted  # type: ignore[assignment]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dist.all_gather_object = self._gather
        self.evaluation = time.process_time() - self._began
        spent = {
            "step": median(self.of_steps[2:] or self.of_steps),  # the first ones warm up
            "bytes_of_step": max(self.bytes_of_steps),
            "evaluation": self.evaluation,
            "bytes_of_evaluation": self.gathered,
        }
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(spent))


def measure(
    num_processes: int, folder: Path, *, num_steps: int, num_samples: int, width: int, num_epochs: int = 4
) -> dict[str, float]:
    """Means over processes of what `Count` has written of a fit of some steps an epoch, and of its last validation."""
    count = Count(folder)
    pl.seed_everything(0, verbose=False)
    attacked = RobustAccuracy(
        {"pgd": PGD(threat=Linf(eps=0.02), num_steps=50)}, max_samples=num_samples, num_images=0, batch_size=num_samples
    )
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        limit_train_batches=num_steps,
        accelerator="cpu",
        devices=num_processes,
        strategy="auto" if num_processes == 1 else "ddp_fork",
        callbacks=[attacked, count],
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Classifier(SmallCNN(width=width)), DigitsDataModule(batch_size=32))
    written = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(num_processes)]
    return {name: mean(one[name] for one in written) for name in written[0]}


def main(processes: Sequence[int] = (1, 2, 4), num_steps: int = 8, num_samples: int = 300, width: int = 32) -> None:
    """Prints a row for each number of processes.

    Args:
        processes: how many, each >= 1.
        num_steps: training steps of an epoch, >= 3; 4 processes have 10 of 32 samples.
        num_samples: samples that are attacked, over all processes.
        width: of the net.
    """
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = []
    for number in processes:
        with tempfile.TemporaryDirectory() as folder:
            spent = measure(number, Path(folder), num_steps=num_steps, num_samples=num_samples, width=width)
        rows.append(
            (
                number,
                32 * number,
                f"{1e3 * spent['step']:.1f}",
                f"{spent['bytes_of_step'] / 1e3:.0f}",
                f"{spent['evaluation']:.2f}",
                f"{spent['bytes_of_evaluation'] / 1e3:.1f}",
            )
        )
    headers = ["processes", "samples per step", "CPU ms of a step", "kB of gradients a step", "CPU s of evaluation"]
    show("For each process (its mean over processes)", [*headers, "kB gathered in it"], rows)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
