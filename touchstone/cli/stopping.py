"""`Stopping`: SIGINT (Ctrl-C), SIGTERM and SIGUSR1 end a run with 130, 143 and 138, the second of them at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Stopping:
    """A block that the first signal leaves by SystemExit, so that Lightning closes its files on the way.

    Lightning itself turns Ctrl-C into exit code 1, ignores a second one, and ends with 0 on SIGTERM.

    Attributes:
        signal: the first signal that came, None while there was none.
        waits: whether somebody else leaves the block when a signal has come, as after the step of a training.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.waits = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            if self.signal is None:
                signal.signal(number, handler)
            elif number != signal.SIGINT:  # the process ends with its exit code; a second Ctrl-C ends it at once
                signal.signal(number, signal.SIG_IGN)  # Python, on its way out, would let one more kill it

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGTERM)

    @contextmanager
    def until_imported(self) -> Iterator[None]:
        """A block that imports, which a signal leaves at its end: inside torch's C++ it would abort the process."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False
        if self.signal is not None:
            raise SystemExit(self.exit_code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of a data loader, which goes on until the run wants it no more
            if number == signal.SIGTERM:
                signal.default_int_handler(number, frame)
            return
        if self.signal is not None:
            os._exit(self.exit_code)
        self.signal = signal.Signals(number)
        if self.waits:
            return
        raise SystemExit(self.exit_code)
