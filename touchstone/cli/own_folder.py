"""`claim_folder`: runs of one process that begin at the same time have a folder each."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def claim_folder(trainer: Trainer) -> list[Path]:
    """Makes the folder of a run whose number its logger counts, and lets it count again where another run was faster.

    Else Lightning makes it when the data are prepared, which takes as long as a large text needs to be encoded. A
    folder that the config names, that several processes share, that lies on another machine, or that cannot be made,
    is left to the run.

    Returns:
        What was made, the innermost first: this folder, and those that it lies in.
    """
    logger = next(iter(trainer.loggers), None)
    if not isinstance(logger, (TensorBoardLogger, CSVLogger)) or logger._version is not None or trainer.world_size > 1:
        return []
    if "://" in str(logger.save_dir):
        return []
    counted = None
    while logger.version != counted:  # a file of this name is no folder, and would be counted for ever
        folder = Path(logger.log_dir)
        made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
        try:
            folder.mkdir(parents=True)
            return made
        except FileExistsError:
            counted, logger._version = logger.version, None
        except OSError:
            break
    return []
