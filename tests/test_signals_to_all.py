"""A signal to all processes of a run, such as Ctrl-C in a terminal: the workers that load its data get it as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from .command_lines import ROOT, write
from .resumed_runs import PARTS, config

pytestmark = pytest.mark.usefixtures("here")

SLOW = """
import time
class SlowDigits(NoisyDigits):
    def train_dataloader(self):
        return DataLoader(Slow(self.train), 8, shuffle=True, num_workers=2)
class Slow(Noisy):
    def __getitem__(self, number):
        time.sleep(0.1)  # so that the run waits for its workers when the signal comes
        return super().__getitem__(number)
"""


SLOW_VALIDATION = """
class SlowValidation(NoisyDigits):
    def val_dataloader(self):
        return DataLoader(Slow(self.val), 8, num_workers=2)
class Watch(pl.Callback):
    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == 1 and batch_idx == 0:
            print("in a validation", flush=True)
"""
STUCK = """
class Stuck(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 10:
            print("in a long step", flush=True)
            time.sleep(100)
"""


def started(given: dict[str, Any]) -> subprocess.Popen[str]:
    """A training, in a process group of its own."""
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", write(given)]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "data", "sign"),
    [
        pytest.param(signal.SIGTERM, "SlowDigits", "epoch 2/", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "SlowDigits", "epoch 2/", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "SlowValidation", "in a validation", marks=pytest.mark.slow),
    ],
)
def test_the_step_is_finished_and_saved_though_the_workers_heard_of_it(
    number: signal.Signals, data: str, sign: str
) -> None:
    Path("mine.py").write_text(PARTS + SLOW + SLOW_VALIDATION)
    given = config()
    given["data"] = {"class_path": f"mine.{data}"}
    given["trainer"]["max_epochs"] = 1000
    given["trainer"]["callbacks"].append({"class_path": "mine.Watch"})
    running = started(given)
    with running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert any(line.startswith(sign) for line in running.stdout)
        time.sleep(1)
        os.killpg(running.pid, number)
        lines = running.stderr.read().splitlines()
        assert running.wait(60) == 128 + number
    assert lines[0] == f"stopped by {number.name}"
    assert lines[2].startswith("to go on: ")
    stored = torch.load("logs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] >= 14


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_step_and_leaves_no_worker() -> None:
    Path("mine.py").write_text(PARTS + SLOW + STUCK)
    given = config()
    given["data"] = {"class_path": "mine.SlowDigits"}
    given["trainer"]["callbacks"].insert(0, {"class_path": "mine.Stuck"})
    with started(given) as running:
        assert running.stdout is not None
        assert any(line == "in a long step\n" for line in running.stdout)
        os.killpg(running.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(2)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(5) == 130
    assert ended_within(30, running.pid)


def ended_within(seconds: float, group: int) -> bool:
    """Whether the last process of a group ends in time."""
    for _ in range(int(10 * seconds)):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
