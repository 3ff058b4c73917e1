"""`Predictions`: what a run of `predict` found, as a table in the run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_warn

from touchstone.options import check_count
from touchstone.runs.run_folder import run_folder
from touchstone.runs.shown import shown

from .parts.names.class_names import class_names
from .parts.names.probabilities import are_shares, described
from .parts.records.table_file import TableFile


class Predictions(BasePredictionWriter):
    """Writes `predictions.csv`: a row for each sample with its most probable classes, the best first.

    Columns: `sample`, its position in the dataset, or where nobody knows that, as in an iterable dataset, its place in
    the pass, counted over all processes in turn; then `class_1`, `probability_1` and so on, and behind them the numbers
    of these classes, `class_number_1` and so on. Of several data loaders the second has `predictions_1.csv`. Of several
    processes each writes what it saw into `predictions_rank_RANK.csv`, and at the end the first one joins them. Classes
    that do not exclude one another may each have a probability of their own, as `sigmoid` gives them. Of logits outside
    [0, 1] nothing is written, and a warning says so.

    Args:
        top_k: classes for each sample, >= 1.

    Raises:
        ValueError: `top_k` is below 1; or a batch gave more or fewer rows than it has samples.
    """

    def __init__(self, *, top_k: int = 3) -> None:
        super().__init__(write_interval="batch")
        check_count("Predictions(top_k=...)", top_k)
        self.top_k = top_k
        self._tables: list[TableFile] = []  # one for each data loader
        self._num_seen: Counter[int] = Counter()  # of each loader, where its samples have no positions
        self._has_warned = False

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        self._num_seen.clear()
        self._has_warned = False
        if folder is not None:
            names = ["predictions", *(f"predictions_{i}" for i in range(1, trainer.predict_loop.num_dataloaders))]
            self._tables = [TableFile(folder / f"{n}.csv", trainer.global_rank, trainer.world_size) for n in names]

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for table in self._tables:
            table.join()

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
        if not self._tables:
            return
        if not are_shares(prediction):
            if not self._has_warned:  # the numbers of the next batch are others, and so would the warning be
                rank_zero_warn(
                    "Predictions: predict_step must return probabilities `(N, classes)` to be written as a table, in "
                    f"[0, 1], as `softmax(1)` or `sigmoid()` makes them of logits, got {described(prediction)}"
                )
            self._has_warned = True
            return
        if batch_indices and len(batch_indices) != len(prediction):
            raise ValueError(
                f"Predictions: predict_step returned {len(prediction)} rows for a batch of {len(batch_indices)} "
                "samples, so that nobody knows whose they are; for pictures, some of which may be damaged, take "
                "NamedPredictions"
            )
        first = trainer.global_rank + trainer.world_size * self._num_seen[dataloader_idx]
        self._num_seen[dataloader_idx] += len(prediction)
        positions = batch_indices or range(first, first + trainer.world_size * len(prediction), trainer.world_size)
        names = class_names(trainer, prediction.shape[1])
        probability, label = prediction.float().topk(min(self.top_k, prediction.shape[1]), dim=1)
        numbers = range(1, label.shape[1] + 1)
        columns = [f"{column}_{k}" for k in numbers for column in ("class", "probability")]
        columns = ["sample", *columns, *(f"class_number_{k}" for k in numbers)]
        for row, sample in enumerate(positions):
            classes = label[row].tolist()
            found = zip(classes, probability[row].tolist(), strict=True)
            named = ((shown(names[c]) if names is not None else c, f"{share:.4f}") for c, share in found)
            values = [sample, *(value for pair in named for value in pair), *classes]
            self._tables[dataloader_idx].write(sample, values, columns)
