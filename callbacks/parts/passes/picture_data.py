"""`check_picture_data`: whether a run of `predict` is over picture files whose names are known."""

from __future__ import annotations

import lightning.pytorch as pl


def check_picture_data(trainer: pl.Trainer, call: str, *, needs: tuple[str, ...] = ("files", "class_names")) -> None:
    """Raises ValueError where the trainer has no data module with these attributes, before anything is predicted."""
    data = getattr(trainer, "datamodule", None)
    missing = [name for name in needs if not hasattr(data, name)]
    if missing:
        given = "none, but a data loader" if data is None else f"{type(data).__name__} without {', '.join(missing)}"
        raise ValueError(f"{call} needs a data module with {', '.join(needs)}, as PicturesDataModule, got {given}")
