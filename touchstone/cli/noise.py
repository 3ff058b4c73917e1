"""`quieten`: what Lightning says, and nobody who runs this program can act on, is not printed.

`warnings_in_a_line` prints those that remain so that an error behind them is found, and `silent_writers` keeps from
stderr what is raised again where it is explained.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.fabric
import lightning.pytorch

ROOT = Path(__file__).resolve().parent.parent.parent
LIGHTNING = tuple(Path(package.__path__[0]) for package in (lightning.pytorch, lightning.fabric))
NOISE = (
    r"💡 Tip: For seamless cloud",  # its own products
    r"TPU available: False",
    r"\[rank: \d+\] Received SIGTERM",
    r"`weights_only` was not set, defaulting to",  # of the checkpoint that a stopped run leaves
    r"Restoring states from the checkpoint path",  # another message says when it is done
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # for Lightning to change
    r"`\.test\(ckpt_path=\"best\"\)` is called with Trainer configured with multiple `ModelCheckpoint`",
    r"The dirpath has changed from",  # a resumed run may have a folder of its own
    r"Checkpoint directory .* exists and is not empty",  # or go on in that of the run
)
NOISE_OUTSIDE_FIT = (  # where a callback of the training is not missed
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
)


def quieten(noise: tuple[str, ...]) -> None:
    """Silences these messages and no others; stderr is left to warnings and errors."""
    for message in noise:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    logging.getLogger("lightning").handlers = [_Printed()]


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """A block in which a warning is a line of stderr, without the line of source that it comes from."""
    before = warnings.formatwarning
    warnings.formatwarning = _in_a_line
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def silent_writers() -> Iterator[None]:
    """A block in which a thread that writes for TensorBoard prints no error: who gave it something to write gets it."""
    before = threading.excepthook

    def say(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            before(failed)

    threading.excepthook = say
    try:
        yield
    finally:
        threading.excepthook = before


def _in_a_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What this project or Lightning says to a user stands alone; what is found in other code needs the place."""
    text = " ".join(str(message).split())
    if issubclass(category, UserWarning) and _is_said_to_users(Path(filename)):
        return f"warning: {text}\n"
    return f"warning: {category.__name__}: {text} ({filename}, line {lineno})\n"


def _is_said_to_users(file: Path) -> bool:
    if file.is_relative_to(ROOT) and "site-packages" not in file.relative_to(ROOT).parts:  # where .venv may lie
        return True
    return any(file.is_relative_to(folder) for folder in LIGHTNING)


class _Printed(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not any(re.match(noise, message) for noise in NOISE):
            print(message, flush=True)
