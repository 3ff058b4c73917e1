"""`publish_sample`: what a language model wrote, for TensorBoard and for the run folder."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl

from touchstone.runs.logs import may_be_lost
from touchstone.runs.run_folder import logged_step, tensorboard_writers


def publish_sample(trainer: pl.Trainer, folder: Path | None, text: str) -> None:
    """Shows a text as `val/sample`, and appends it to `samples.txt` of the run folder. For rank zero."""
    step = logged_step(trainer)
    for writer in tensorboard_writers(trainer):
        as_it_is = "\n".join("    " + line for line in text.splitlines())
        writer.add_text("val/sample", as_it_is, step)
    if folder is not None:
        with may_be_lost(trainer):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "samples.txt").open("a", encoding="utf-8") as file:
                file.write(f"=== step {step}\n{text}\n")
