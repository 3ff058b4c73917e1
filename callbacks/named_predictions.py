"""`NamedPredictions`: for every picture file the most probable classes by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn

from touchstone.attacks import frozen_eval
from touchstone.nets import untrained
from touchstone.nets.last_layer import last_layer
from touchstone.options import check_counts, check_flags
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder
from touchstone.runs.shown import shown

from .parts.names.probabilities import are_probabilities, described
from .parts.passes.on_device import on_device
from .parts.passes.picture_data import check_picture_data
from .parts.passes.processes import gather
from .parts.pictures.answered import check_answered
from .parts.pictures.labelled_copy import labelled_copy
from .parts.pictures.named_picture import Named, named_picture
from .parts.records.publish import plain_name, publish_picture
from .parts.records.table_file import TableFile

RANDOM = "random"
MOST = 200  # characters of a class's name
Likeliest = list[tuple[str, float]]
"""Names of classes and their probabilities, the best first."""


class NamedPredictions(BasePredictionWriter):
    """Says in the terminal what is in each picture, and writes `predictions.csv` and labelled copies.

    For a data module with `files`, `picture(position)` and `class_names` whose batches are (pictures, positions in
    `files`, what could not be read), as `PicturesDataModule`. Columns of `predictions.csv`: `file`, then `class_1`,
    `probability_1` and so on, control characters in names as their escapes, and behind them the numbers of these
    classes, `class_number_1` and so on; the copies lie in `labelled/` of the run folder, numbered by the position of
    their file in `files`. The picture `predictions` shows the first pictures as the net gets them, with their classes.

    Args:
        top_k: classes for each picture, >= 1.
        labelled: whether to write the copies.
        beside: other nets by name, whose predictions stand beside, in columns that begin with the name.
        random: whether the module's own net stands beside with random weights, as `untrained` makes it, by the name
            `random`; for a module that has its net as `.net`.
        num_images: pictures in the picture, >= 0.

    Raises:
        ValueError: a value is outside its range; what `predict_step` returns are no probabilities, or NaN; or, said at
            the end, none of the files could be read.
    """

    def __init__(
        self,
        *,
        top_k: int = 5,
        labelled: bool = True,
        beside: Mapping[str, nn.Module] | None = None,
        random: bool = False,
        num_images: int = 4,
    ) -> None:
        super().__init__(write_interval="batch")
        check_counts(self, top_k=top_k)
        check_counts(self, num_images=num_images, least=0)
        check_flags(self, labelled=labelled, random=random)
        if random and RANDOM in (beside or {}):
            raise ValueError(f"NamedPredictions(random=True, beside=...) must name other nets than {RANDOM!r}")
        self.top_k, self.labelled, self.beside = top_k, labelled, dict(beside or {})
        self.random, self.num_images = random, num_images
        self._folder: Path | None = None
        self._root = Path()
        self._table: TableFile | None = None
        self._shown: list[Named] = []
        self._num_written = 0
        self._damaged: list[str] = []
        self._unread: list[str] = []  # where none could be read

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_picture_data(trainer, "NamedPredictions", needs=("files", "picture", "class_names"))
        files = of_data(trainer, "files")
        self._root = Path(os.path.commonpath([file.absolute().parent for file in files]) if files else "")
        self._folder = folder = run_folder(trainer)
        if folder is not None:
            self._table = TableFile(folder / "predictions.csv", trainer.global_rank, trainer.world_size)
        self._num_written = 0
        self._damaged, self._shown, self._unread = [], [], []
        if self.random:
            self.beside[RANDOM] = self._untrained(pl_module)
        for net in self.beside.values():
            on_device(net, pl_module.device).eval()

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        x, positions, damaged = batch
        data = trainer.datamodule  # type: ignore[attr-defined]
        for position, reason in damaged:
            self._damaged.append(shown(f"{data.files[position]}: {reason}"))
            print(f"{self._below_root(data.files[position])}: not read: {shown(reason)}", flush=True)
        if not len(x):
            return
        if trainer.is_global_zero and (batch_idx == 0 or not self._num_written):
            self._say_nets(pl_module, x)
        files = [data.files[position] for position in positions.tolist()]
        found = {"": prediction, **{name: self._ask(net, x) for name, net in self.beside.items()}}
        self._check_probabilities(found, files)
        named = {name: self._named(probabilities, data.class_names) for name, probabilities in found.items()}
        for row, (position, file) in enumerate(zip(positions.tolist(), files, strict=True)):
            each = {name: likeliest[row] for name, (likeliest, _) in named.items()}
            numbers = {name: classes[row] for name, (_, classes) in named.items()}
            self._say(file, each)
            if len(self._shown) < self.num_images:
                self._shown.append(Named(file.name, x[row].cpu(), each))
            self._write(data, position, each, numbers)
            self._num_written += 1

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        num_written, damaged = sum(gather(self._num_written)), [line for mine in gather(self._damaged) for line in mine]
        self._unread = [] if num_written else damaged
        if self._table is not None:
            self._table.join()
        if not trainer.is_global_zero:
            return
        print(
            f"{num_written} picture{'' if num_written == 1 else 's'} predicted, {len(damaged)} could not be read",
            flush=True,
        )
        for line in damaged:
            print(f"  {line}", flush=True)
        if self._shown:
            publish_picture(trainer, self._folder, "predictions", named_picture(self._shown))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """By now other callbacks have written theirs."""
        unread, self._unread = self._unread, []
        if unread and stage == "predict":
            others = f", nor the other {len(unread) - 1}" if len(unread) > 1 else ""
            raise ValueError(f"NamedPredictions could not read {unread[0]}{others}, so that nothing is predicted")

    @staticmethod
    def _untrained(module: pl.LightningModule) -> nn.Module:
        net = getattr(module, "net", None)
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"NamedPredictions(random=True) must be for a module with a `net`, got {type(module).__name__}"
            )
        with frozen_eval(nn.Identity()):  # which gives the global random state back
            return untrained(net)

    def _say_nets(self, module: pl.LightningModule, x: Tensor) -> None:
        for name, net in {"the net": module, **self.beside}.items():
            try:
                layer, num_features = last_layer(net, x[:1])
                said = f"{num_features:,} features enter the last layer, {layer}"
            except ValueError as error:  # which is no reason to predict nothing
                said = f"how many features enter the last layer is not known ({error})"
            print(f"{name}: {said}", flush=True)

    @staticmethod
    def _ask(net: nn.Module, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(x).softmax(1)

    @staticmethod
    def _check_probabilities(found: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Raises ValueError where a net puts out NaN, or `predict_step` logits."""
        for name, rows in found.items():
            if isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == len(files):
                check_answered("NamedPredictions", rows, files, when=f" ({name})" if name else "")
            if not are_probabilities(rows) or len(rows) != len(files):
                raise ValueError(
                    f"NamedPredictions: predict_step must return the probabilities of each picture, ({len(files)}, "
                    f"classes), in rows that sum to 1, as `softmax(1)` makes them of logits, got {described(rows)}"
                )

    def _named(self, probabilities: Tensor, names: Sequence[str] | None) -> tuple[list[Likeliest], list[list[int]]]:
        """For each picture the most probable classes by name, and their numbers."""
        if names is not None and len(names) != probabilities.shape[1]:
            raise ValueError(
                f"NamedPredictions: the net has {probabilities.shape[1]} classes and the data module "
                f"{len(names)} class_names; set those of the data module, or null for numbers"
            )
        found = probabilities.float().topk(min(self.top_k, probabilities.shape[1]), dim=1)
        shares, classes = found.values.tolist(), found.indices.tolist()
        likeliest = [
            [(str(c) if names is None else shown(names[c], MOST), share) for c, share in zip(*row, strict=True)]
            for row in zip(classes, shares, strict=True)
        ]
        return likeliest, classes

    def _below_root(self, file: Path) -> str:
        """What a file is called in the terminal: several folders may have one of the same name."""
        return shown(os.path.relpath(file, self._root))

    def _say(self, file: Path, each: Mapping[str, Likeliest]) -> None:
        for name, found in each.items():
            text = ", ".join(f"{label} {share:.1%}" for label, share in found)
            print(f"{self._below_root(file)}{f' ({name})' if name else ''}: {text}", flush=True)

    def _write(
        self, data: Any, position: int, each: Mapping[str, Likeliest], numbers: Mapping[str, Sequence[int]]
    ) -> None:
        if self._folder is None or self._table is None:
            return
        columns = [
            f"{name}_{what}_{k + 1}" if name else f"{what}_{k + 1}"
            for name, found in each.items()
            for k in range(len(found))
            for what in ("class", "probability")
        ]
        columns += [
            f"{name}_class_number_{k + 1}" if name else f"class_number_{k + 1}"
            for name, classes in numbers.items()
            for k in range(len(classes))
        ]
        values = [text for found in each.values() for label, share in found for text in (label, f"{share:.4f}")]
        values += [str(number) for classes in numbers.values() for number in classes]
        self._table.write(position, [shown(data.files[position]), *values], ["file", *columns])
        if self.labelled:
            lines = [f"{label} {share:.1%}" for label, share in each[""]]
            path = self._folder / "labelled" / f"{position:05d}_{plain_name(data.files[position].stem)}.jpg"
            path.parent.mkdir(exist_ok=True)
            labelled_copy(data.picture(position), lines[:1]).save(path, quality=90)
