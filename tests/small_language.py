"""A small text, and a small language model for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import TransformerLM

SMALL = {"context": 16, "batch_size": 8, "steps_per_epoch": 3, "val_share": 0.1, "test_share": 0.1}


def text_data(folder: Path, **options: Any) -> TextDataModule:
    file = folder / "text.txt"
    file.write_text("".join(f"The square of {number} is {number**2}, and no more é.\n" for number in range(100)))
    options = {**SMALL, **options}
    return TextDataModule(files=[str(file)], tokens="bytes", token_folder=str(folder / "tokens"), **options)


def small_lm(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(TransformerLM(256, dim=16, num_heads=2, num_layers=1, context=16), **options)
