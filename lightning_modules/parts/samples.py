"""What a language model writes of its own: from which prompt, by which vocabulary, and where it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from touchstone.runs.logs import may_be_lost
from touchstone.runs.run_folder import logged_step, tensorboard_writers


def lacking(vocabulary: Any, prompt: str | None) -> list[str]:
    """What samples need and a vocabulary lacks: names only where the prompt is chosen from them."""
    needed = ("encode", "decode", "names") if prompt is None else ("encode", "decode")
    return [name for name in needed if not hasattr(vocabulary, name)]


def encoded_prompt(vocabulary: Any, prompt: str | None) -> Tensor:
    """The tokens of a prompt, int64 `(1, T)`; of None those of a line break, or the first token where there is none.

    Raises:
        ValueError: it is empty, or has a character that the vocabulary lacks.
    """
    if prompt is None:
        prompt = "\n" if "\n" in vocabulary.names else vocabulary.names[0]
    try:
        ids = vocabulary.encode(prompt)
    except ValueError as error:
        raise ValueError(f"LanguageModel(prompt=...): {error}") from error
    if not len(ids):
        raise ValueError("LanguageModel(prompt=...) must be None or a text, got an empty one")
    return torch.tensor(ids.astype("int64"))[None]


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
