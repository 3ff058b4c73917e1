"""`end_other_processes`: a run that has failed leaves none of its processes behind."""

from __future__ import annotations

import subprocess

import lightning.pytorch as pl

SECONDS = 5.0


def end_other_processes(trainer: pl.Trainer, seconds: float = SECONDS) -> None:
    """Ends the processes that this one has started to train with it, which would wait for it, or compute on.

    Lightning ends this process where another one has failed, and does nothing where this one has.

    Args:
        trainer: whose strategy has started them, as `ddp` does for `devices` above 1; torchrun and Slurm start, and
            end, processes themselves.
        seconds: how long each may take to end, and say why, by itself.
    """
    for process in getattr(trainer.strategy.launcher, "procs", []):
        if not isinstance(process, subprocess.Popen):
            continue
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
