"""`DurableCheckpointIO`: checkpoints that are there whole or not at all, and `damage`, which sees what befell them."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from .whole_files import replacing


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, waits for the disk, and puts it in the target's place in one step.

    Whatever ends the process or the power while it writes, the target is the old file or the new one. Lightning's own
    writes elsewhere and copies, which can leave an empty file in the place of a good one. Given to a trainer as
    `Trainer(plugins=[DurableCheckpointIO()])`; addresses such as `s3://` are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(Path(path), dead_after=0) as file:  # one process of a run writes its checkpoints
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of torch's archive, which cannot be ended where the disk refused a part
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def damage(path: Path) -> str | None:
    """What is wrong with the bytes of a checkpoint, in words; None where they are those that were written.

    torch keeps a checksum of each tensor in the file, and does not look at it when it loads.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.stat().st_size:
        return "it is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises many kinds, depending on where the bytes stop making sense
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a place before the start of the file
            raise
        return "its end is missing, or it is no checkpoint"
    return None if broken is None else f"its bytes are not those that were written, first in {broken!r}"
