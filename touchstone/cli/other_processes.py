"""A run that has failed leaves none of its processes behind: `EndTogether`; `say_what_ended` where one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ..own_class import put_before

SECONDS = 5.0  # that each process may take to end, and say why, by itself


class EndTogether(pl.Callback):
    """Ends the processes that a failed one has started to train with it, which would wait for it, or compute on.

    Lightning ends the first process where another one has failed, and does nothing where the first one has.
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        if not isinstance(exception, Exception):  # a signal: all of them have it
            return
        if not isinstance(launcher, _SubprocessScriptLauncher):  # torchrun and Slurm end what they have started
            return
        processes = list(launcher.procs)
        launcher.procs.clear()  # Lightning watches this list, and would kill this process before it has said why
        for process in processes:
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def say_what_ended(trainer: pl.Trainer) -> None:
    """Lets the first process end with 1 and a reason where another one that it has started has failed.

    Lightning, which sees it within seconds, kills the first one, without a word where the other one was killed too.
    """
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        put_before(trainer.strategy.launcher, _Saying)


class _Saying(_SubprocessScriptLauncher):
    def launch(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        # Else the others write 20 lines of C++ where the first one has ended: that it has, they say themselves.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        return super().launch(partial(_watched, function), *args, **options)


def _watched(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._terminate_all = partial(_end_all, thread._child_processes)  # type: ignore[method-assign]
    return function(*args, **options)


def _end_all(processes: Sequence[subprocess.Popen[Any]]) -> NoReturn:
    code = next((process.returncode for process in processes if process.returncode), 1)
    for process in processes:
        process.kill()
    names = {-number: number.name for number in signal.Signals}
    how = f"was killed by {names.get(code, f'signal {-code}')}" if code < 0 else f"has ended with {code}"
    print(f"error: another process of this run {how}, without which it cannot go on", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may wait for the other process, and hears of nothing
