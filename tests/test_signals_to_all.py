"""A signal to all processes of a run, such as Ctrl-C in a terminal: the workers that load its data get it as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_step_is_finished_and_saved_though_the_workers_heard_of_it(number: signal.Signals) -> None:
    Path("mine.py").write_text(PARTS + SLOW)
    given = config()
    given["data"] = {"class_path": "mine.SlowDigits"}
    given["trainer"]["max_epochs"] = 1000
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", write(given)]
    running = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with running:
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stdout:
            if line.startswith("epoch 2/"):
                break
        time.sleep(1)
        os.killpg(running.pid, number)
        lines = running.stderr.read().splitlines()
        assert running.wait(60) == 128 + number
    assert lines[0] == f"stopped by {number.name}"
    assert lines[2].startswith("to go on: ")
    stored = torch.load("logs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] > 14
