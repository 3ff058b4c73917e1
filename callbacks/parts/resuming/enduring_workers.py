"""`with_enduring_workers`: a data loader whose worker processes a signal to all processes of a run does not end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from touchstone.own_class import put_before


class Enduring(DataLoader):
    """What is put before the class of a data loader."""

    def __iter__(self) -> Any:
        if not isinstance(self.worker_init_fn, _Undisturbed):  # now, when Lightning has set its own
            self.worker_init_fn = _Undisturbed(self.worker_init_fn)
        return super().__iter__()


def with_enduring_workers(loader: DataLoader) -> DataLoader:
    """Lets the worker processes of a loader go on where the run gets a signal: it ends them after its step.

    Args:
        loader: changed in place; it stays an instance of its class, also where Lightning makes another one like it.
    """
    if not isinstance(loader, Enduring):
        put_before(loader, Enduring)
    return loader


class _Undisturbed:
    """Begins a worker process. Torch has set a handler of SIGTERM by then, which ends it."""

    def __init__(self, begin: Callable[[int], None] | None) -> None:
        self._begin = begin

    def __call__(self, worker: int) -> None:
        for name in ("SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _ignore_once)  # which torch sends as well, again and again, to one that hangs
        if self._begin is not None:
            self._begin(worker)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
