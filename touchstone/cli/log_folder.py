"""`about_log_folder`: that the folder for logs cannot be made, in words that name the key which sets it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace


def about_log_folder(error: BaseException, folder: Path | None, logger: Any) -> OSError | None:
    """The error to raise where a run could not make its `folder`, or one above it; None where it is another one."""
    if folder is None or not isinstance(error, OSError) or not isinstance(error.filename, (str, Path)):
        return None
    failed, wanted = Path(os.path.abspath(error.filename)), Path(os.path.abspath(folder))
    if failed not in (wanted, *wanted.parents) or os.path.isdir(failed) and os.access(failed, os.W_OK):
        return None
    reason = f"the folder for logs, which {_key(logger)} sets, cannot be made: {error.strerror}"
    return OSError(error.errno, reason, error.filename)


def _key(logger: Any) -> str:
    """The key that says where the logs lie; of several loggers it is that of the first, as the run folder is."""
    key = "trainer.logger"
    if isinstance(logger, list) and logger:
        key, logger = f"{key}.0", logger[0]
    options = logger.get("init_args") if isinstance(logger, Namespace) else None
    is_set = options is not None and options.get("save_dir") is not None
    return f"{key}.init_args.save_dir" if is_set else "trainer.default_root_dir"
