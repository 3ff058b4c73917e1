"""`Stopping`: SIGINT (Ctrl-C) and SIGTERM end a run with 130 and 143, the second of them at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Stopping:
    """A block that the first signal leaves by SystemExit, so that Lightning closes its files on the way.

    Lightning itself turns Ctrl-C into exit code 1, ignores a second one, and ends with 0 on SIGTERM.

    Attributes:
        signal: the first signal that came, None while there was none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        if self.signal is None:  # otherwise the process is about to end, and a further signal ends it at once
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        assert self.signal is not None
        return 128 + self.signal

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of a data loader, which ends quietly on KeyboardInterrupt
            signal.default_int_handler(number, frame)
        if self.signal is not None:
            os._exit(self.exit_code)
        self.signal = signal.Signals(number)
        raise SystemExit(self.exit_code)
