"""`publish_sample`: what a language model wrote, for TensorBoard and for the run folder."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn


def publish_sample(module: pl.LightningModule, folder: str | None, text: str) -> None:
    """Shows a text as `val/sample`, and appends it to `samples.txt` of a folder, the run's. For rank zero."""
    # Where Lightning writes the figures of this pass; beyond it a resumed run takes away what was written.
    logged_step = module.trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in module.loggers:
        if isinstance(logger, TensorBoardLogger):
            as_it_is = "\n".join("    " + line for line in text.splitlines())
            logger.experiment.add_text("val/sample", as_it_is, logged_step)
    if module.loggers and folder is not None:
        try:
            with (Path(folder) / "samples.txt").open("a", encoding="utf-8") as file:
                file.write(f"=== step {logged_step}\n{text}\n")
        except OSError as error:  # no reason to end a training
            rank_zero_warn(f"samples.txt cannot be written: {error.strerror}")
