"""`DurableCheckpointIO`: checkpoints that are there whole or not at all, and `damage`, which sees what befell them."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH


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
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends, and leaves no trace where it fails.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed
        with suppress(OSError):
            left_over.unlink()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    with suppress(OSError):  # some systems have no folders that can be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
