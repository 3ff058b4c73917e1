"""The data loaders that a validation or test goes through, one after another."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def running_loaders(trainer: pl.Trainer) -> list[Any]:
    """The loaders of the running pass, in the order in which Lightning numbers them.

    Raises:
        ValueError: the trainer draws from several of them at once, so that a batch is a batch of batches.
    """
    # Not `trainer.val_dataloaders`: that is one loader, a list, a dict or whatever else the user gave.
    combined = trainer._evaluation_loop._combined_loader
    assert combined is not None
    if combined._mode != "sequential":
        raise ValueError(
            "CombinedLoader(mode=...) must be 'sequential' where a callback measures the samples one loader after "
            f"another, got {combined._mode!r}, whose batches hold a batch of each loader"
        )
    return combined.flattened


def loader_suffix(trainer: pl.Trainer, index: int) -> str:
    """What Lightning appends to the names of one of several data loaders."""
    return f"/dataloader_idx_{index}" if len(running_loaders(trainer)) > 1 else ""
