"""What can be wrong with the checkpoint that a command names, in words."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from touchstone.nets.parts.stored_weights import stored_weights
from touchstone.nets.trained import OF_LIGHTNING

from ..runs.durable import damage
from .mistakes import UsageError, nearest_file


def check_checkpoint(name: str | None, *, to_fit: bool = False) -> None:
    """Checks that `--ckpt_path` names a Lightning checkpoint.

    Args:
        name: its file; None for no checkpoint.
        to_fit: whether a training goes on with it, which takes more than weights.

    Raises:
        UsageError: it does not.
    """
    if name is None or "://" in name:
        return
    if name and os.path.isfile(Path(name, "meta.pt")):  # the folder of a checkpoint of several shards
        return
    _check_file(name)
    saved = load_checkpoint(name)
    for key, kind in (("state_dict", dict), (OF_LIGHTNING, str)):
        if not isinstance(saved, dict) or not isinstance(saved.get(key), kind):
            raise UsageError(
                f"{name!r} is no Lightning checkpoint: it has no {key}; weights alone go into a net of the config, by "
                "touchstone.nets.Trained or PublicCheckpoint"
            )
    if to_fit and "optimizer_states" not in saved:
        raise UsageError(
            f"the checkpoint {name!r} holds weights alone, as of save_weights_only, and no state of an optimizer: no "
            "training goes on with it; touchstone.nets.Trained begins one with its weights"
        )


def _check_file(name: str) -> None:
    """Raises UsageError where there is no such file, or its bytes are not those that were written."""
    path = Path(name)
    if not name:
        raise UsageError("--ckpt_path needs a file, last or best")
    if os.path.isdir(path):
        raise UsageError(f"the checkpoint {name!r} is a folder, not a file")
    if not os.path.exists(path):
        raise UsageError(f"the checkpoint {name!r} does not exist{nearest_file(path)}")
    if not os.path.isfile(path):
        raise UsageError(f"the checkpoint {name!r} is no file")
    if zipfile.is_zipfile(path) and (problem := damage(path)):
        raise UsageError(f"the checkpoint {name!r} is damaged: {problem}")


def explain_mismatch(name: str | None, model: nn.Module) -> UsageError | None:
    """The first parameter in which a checkpoint and a model differ, None where they agree.

    Of what modules keep beside their tensors, as a strategy its memory, loading complains itself, where it does.
    """
    if name is None or not Path(name).is_file():
        return None
    saved, own = (
        {key: value for key, value in state.items() if isinstance(value, Tensor)}
        for state in (load_checkpoint(name)["state_dict"], model.state_dict())
    )
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
        return stored_weights(name, repr(name))
    except OSError as error:
        raise UsageError(f"the checkpoint {name!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
