"""`EndTogether`: a run that has failed leaves none of its processes behind."""

from __future__ import annotations

import subprocess

import lightning.pytorch as pl
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


class EndTogether(pl.Callback):
    """Ends the processes that a failed one has started to train with it, which would wait for it, or compute on.

    Lightning ends the first process where another one has failed, and does nothing where the first one has.

    Args:
        seconds: how long each process may take to end, and say why, by itself.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds

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
                process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
