"""Files of text, and the data module that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from touchstone.datamodules import TextDataModule

TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 😀\n" * 40


def write(folder: Path, text: str = TEXT, name: str = "text.txt") -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def data(folder: Path, *files: str, **options: Any) -> TextDataModule:
    options = {"context": 16, "batch_size": 4, "val_share": 0.2, "test_share": 0.1, **options}
    module = TextDataModule(files=files or None, token_folder=str(folder / "tokens"), **options)
    module.prepare_data()
    module.setup("fit")
    return module
