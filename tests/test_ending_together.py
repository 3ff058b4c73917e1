"""An error on one of two processes ends both, with that error on stderr: none waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from touchstone.cli.failures import describe_failure

from .command_lines import ROOT, TINY, write

pytestmark = pytest.mark.usefixtures("here")

PARTS = """
import os, time
from pathlib import Path
import lightning.pytorch as pl

class Break(pl.Callback):
    def __init__(self, rank: int, hook: str, sleep: int = 0, by_signal: bool = False):
        self.rank, self.sleep, self.by_signal = rank, sleep, by_signal
        setattr(self, hook, self.break_off)
    def setup(self, trainer, module, stage):
        Path(f"pid_{trainer.global_rank}").write_text(str(os.getpid()))
    def break_off(self, trainer, module, *_):
        if trainer.global_rank == self.rank:
            Path("broke_at").write_text(str(time.time()))
            if self.by_signal:
                os.kill(os.getpid(), 9)
            raise RuntimeError(f"the cable of process {self.rank} is cut")
        time.sleep(self.sleep)
"""


def broken(**options: Any) -> tuple[subprocess.CompletedProcess[str], float]:
    """Runs the tiny config on two processes, one of which breaks; how it ended, and how many seconds after that."""
    Path("mine.py").write_text(PARTS)
    config = {**TINY, "trainer": {**TINY["trainer"], "devices": 2, "strategy": "ddp"}}
    breaking = {"class_path": "mine.Break", "init_args": options}
    config["trainer"]["callbacks"] = [*TINY["trainer"]["callbacks"], breaking]
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", write(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return ended, time.time() - float(Path("broke_at").read_text())


def is_running(rank: int) -> bool:
    try:
        os.kill(int(Path(f"pid_{rank}").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def check(ended: subprocess.CompletedProcess[str], seconds: float, rank: int) -> None:
    assert ended.stderr.startswith(f"error: the cable of process {rank} is cut\n"), ended.stderr
    assert len(ended.stderr.splitlines()) <= 8
    assert seconds < 60
    assert ended.returncode != 0
    assert not is_running(0)
    assert not is_running(1)


@pytest.mark.slow
def test_an_error_on_the_second_process_ends_the_first_which_says_whose_it_was() -> None:
    ended, seconds = broken(rank=1, hook="on_train_batch_end")
    check(ended, seconds, 1)
    assert ended.returncode == 1
    assert "error: another process of this run has ended, for which this one waited" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_end", "on_save_checkpoint"])
def test_an_error_anywhere_ends_both(hook: str, rank: int) -> None:
    check(*broken(rank=rank, hook=hook), rank)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_ends_a_process_too_that_is_busy_for_ten_minutes(rank: int) -> None:
    ended, seconds = broken(rank=rank, hook="on_validation_batch_end", sleep=600)
    check(ended, seconds, rank)
    assert ended.returncode == 1
    assert rank == 0 or "error: another process of this run has ended with 1, without which it" in ended.stderr


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_first_one_which_says_so() -> None:
    ended, seconds = broken(rank=1, hook="on_validation_batch_end", sleep=600, by_signal=True)
    said = "error: another process of this run was killed by SIGKILL, without which it cannot go on\n"
    assert (ended.returncode, ended.stderr) == (1, said)
    assert seconds < 60
    assert not is_running(0)


def test_a_lost_connection_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    lines = describe_failure(RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:30618. This is"))
    assert lines[0] == "error: another process of this run has ended, for which this one waited: its own error says why"


@pytest.mark.parametrize("is_one_of_several", [False, True])
def test_a_broken_download_is_blamed_on_no_other_process(
    is_one_of_several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: is_one_of_several)
    lines = describe_failure(URLError(ConnectionResetError(104, "Connection reset by peer")))
    assert lines[0] == "error: URLError: <urlopen error [Errno 104] Connection reset by peer>"


def test_a_single_process_lost_no_other_one() -> None:
    lines = describe_failure(RuntimeError("Connection reset by peer"))
    assert lines[0] == "error: Connection reset by peer"
