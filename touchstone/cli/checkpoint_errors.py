"""What can be wrong with the checkpoint that a command names, in words."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..runs.durable import damage
from .failures import message_lines
from .given import UsageError, nearest_file

LIGHTNING_FINDS = ("hpc", "registry")


def check_checkpoint(name: str | None) -> None:
    """Checks that `--ckpt_path` names a Lightning checkpoint.

    Raises:
        UsageError: it does not.
    """
    if name is None or name.startswith(LIGHTNING_FINDS) or "://" in name:
        return
    path = Path(name)
    if path.is_dir():
        if not (path / "meta.pt").is_file():  # a checkpoint of several shards is a folder with this file
            raise UsageError(f"the checkpoint {name!r} is a folder, not a file")
        return
    if not path.is_file():
        raise UsageError(f"the checkpoint {name!r} does not exist{nearest_file(path)}")
    if zipfile.is_zipfile(path) and (problem := damage(path)):
        raise UsageError(f"the checkpoint {name!r} is damaged: {problem}")
    saved = load_checkpoint(name)
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise UsageError(f"{name!r} is no Lightning checkpoint: it has no state_dict")


def explain_mismatch(name: str | None, model: nn.Module) -> UsageError | None:
    """The first parameter in which a checkpoint and a model differ, None where they agree."""
    if name is None or not Path(name).is_file():
        return None
    saved, own = load_checkpoint(name)["state_dict"], model.state_dict()
    for key, value in own.items():
        if key not in saved:
            return UsageError(f"the checkpoint {name!r} is of another model: it has no {key!r}")
        if saved[key].shape != value.shape:
            shapes = f"{tuple(saved[key].shape)}, and {tuple(value.shape)} in this model"
            return UsageError(f"the checkpoint {name!r} is of another model: {key!r} has the shape {shapes}")
    extra = next((key for key in saved if key not in own), None)
    if extra is not None:
        return UsageError(f"the checkpoint {name!r} is of another model: this one has no {extra!r}")
    return None


def load_checkpoint(name: str) -> Any:
    """What a checkpoint holds; no code in it is run.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        return torch.load(name, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"the checkpoint {name!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises many kinds, depending on where the bytes stop making sense
        reason = message_lines(error)[0].split(". ")[0]
        raise UsageError(f"{name!r} is no checkpoint, or a damaged one: {reason}") from error
