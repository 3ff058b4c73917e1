"""`Output`: what is printed may be lost, a run not."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class Output:
    """A block in which stdout and stderr raise no OSError: one that fails, as on a full disk, is silent from then on.

    What cannot be printed is no reason to end a training of days. The failure of stdout is said once on stderr.
    """

    def __init__(self) -> None:
        self._before = sys.stdout, sys.stderr
        self._stderr = _Stream(sys.stderr or io.StringIO())  # which are None where they were closed before the start
        self._stdout = _Stream(sys.stdout or io.StringIO(), tells=self._stderr)

    @property
    def is_lost(self) -> bool:
        """Whether something could not be printed on stdout."""
        self._stdout.flush()
        return self._stdout.is_lost

    def __enter__(self) -> Output:
        sys.stdout, sys.stderr = self._stdout, self._stderr
        return self

    def __exit__(self, *_: object) -> None:
        self._stdout.flush()
        self._stderr.flush()
        sys.stdout, sys.stderr = self._before


class _Stream:
    """A stream up to its first OSError; `tells` hears of that."""

    def __init__(self, stream: TextIO, tells: _Stream | None = None) -> None:
        self._stream, self._tells, self.is_lost = stream, tells, False

    def write(self, text: str) -> int:
        return self._do("write", text) or len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._do("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, name: str, *arguments: str) -> Any:
        if self.is_lost:
            return None
        try:
            return getattr(self._stream, name)(*arguments)
        except OSError as error:
            self.is_lost = True
            self._drain()
            if self._tells is not None:
                self._tells.write(f"stdout is lost ({error.strerror or error}): the run goes on without it\n")
            return None

    def _drain(self) -> None:
        """Leads the file away to nowhere: what is left in a buffer fails again when Python ends, with exit code 120."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except OSError:  # a stream of Python's own, as in a notebook, has no file
            return
