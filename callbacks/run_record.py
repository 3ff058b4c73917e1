"""`RunRecord`: what a run was: its config in the run folder, and config, graph and hyperparameters in TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.logits import logits_as_float
from touchstone.runs.run_folder import run_folder, tensorboard_writers
from touchstone.runs.whole_files import write_whole

from .parts.passes.batch_keys import images_and_labels
from .parts.records.publish import publish_text


class RunRecord(SaveConfigCallback):
    """Saves `config.yaml`, and shows the config as text, the graph, and the hyperparameters beside final metrics.

    `LightningCLI(save_config_callback=RunRecord)` creates it with the parsed config.
    """

    _traced = False
    _folder: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or not self.overwrite:
            self._record(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.overwrite:  # not before the checkpoint is loaded: one that is refused leaves the folder as it was
            self._record(trainer, pl_module, "fit")

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = run_folder(trainer)
        is_taken = ValueError(
            f"{folder} has the config of an earlier run, and is its folder; `version: null` of the logger gives this "
            "run one of its own"
        )
        is_here = bool(trainer.loggers) and "://" not in str(trainer.log_dir)
        if self.save_to_log_dir and is_here and not self.multifile:  # Lightning might leave half of it
            self.save_to_log_dir, self._folder = False, folder
            is_there = folder is not None and not self.overwrite and (folder / self.config_filename).is_file()
            if trainer.strategy.broadcast(is_there):
                raise is_taken
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            if folder is None or "to NOT exist" not in str(error):
                raise
            raise is_taken from error

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_unset=False, skip_validation=True)  # it was parsed
        if self._folder is not None:
            write_whole(self._folder / self.config_filename, text)
        publish_text(trainer, "config", "\n".join("    " + line for line in text.splitlines()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_first = trainer.fit_loop.epoch_loop.total_batch_idx == 0  # of the run, which may have been resumed
        if self._traced or not (is_first and trainer.is_global_zero):
            return
        self._traced = True
        for writer in tensorboard_writers(trainer):
            _trace(writer, pl_module, batch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard.summary import hparams

        metrics = {tag: 0.0 for tag in trainer.logged_metrics}  # their values are read from the curves
        for writer in tensorboard_writers(trainer):
            for part in hparams(self._hyperparameters(), metrics):
                writer._get_file_writer().add_summary(part)

    def _hyperparameters(self) -> dict[str, Any]:
        """The scalars of the config that say what was trained, and not where or how it was watched."""
        config = self.config.as_dict()
        config = config.get(str(config.get("subcommand")), config)
        chosen = {key: config.get(key) for key in ("seed_everything", "model", "data")}
        return _flat({**chosen, "max_epochs": (config.get("trainer") or {}).get("max_epochs")})


def _trace(writer: Any, module: pl.LightningModule, batch: Any) -> None:
    """Shows the graph of the module, where its batches are (input, ...) and it can be traced."""
    try:
        x, _ = images_and_labels(batch, None)
    except ValueError:
        return
    if not isinstance(x, Tensor):
        return
    with (
        buffers_kept(module),
        frozen_eval(module),
        logits_as_float(module),
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
    ):
        warnings.simplefilter("ignore")  # of the tracer about itself
        try:
            sample = x[:1].clone()
            traced = torch.jit.trace(module, sample, check_trace=False)  # add_graph would trace twice, to compare
            writer.add_graph(traced, sample)
            return
        except Exception as error:  # whatever a net does that the tracer cannot follow
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    rank_zero_warn(f"TensorBoard shows no graph of this run, since {type(module).__name__} cannot be traced: {reason}")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The scalars of a nested config by their dotted keys."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(config, dict):
        items = config.items()
    elif isinstance(config, (list, tuple)):
        items = enumerate(config)
    else:
        return {prefix: config if isinstance(config, (bool, int, float, str)) else str(config)}
    return {k: v for key, value in items for k, v in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()}
