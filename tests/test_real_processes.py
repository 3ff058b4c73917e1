"""What a process of its own does: its exit code, its streams, and what a signal leaves behind."""

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

from touchstone.cli.stopping import SIGNALS, Stopping

from .command_lines import BEST, ROOT, with_value, write

pytestmark = pytest.mark.usefixtures("here")


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


@pytest.mark.parametrize(
    ("number", "saves_last"), [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_with_its_exit_code_and_keeps_what_was_written(
    run: Any, number: signal.Signals, saves_last: bool
) -> None:
    config = with_value(10_000, "trainer", "max_epochs")
    if saves_last:
        last = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last", "enable_version_counter": False}}
        config["trainer"]["callbacks"].append(last)
    name = write(config)
    with process("fit", "--config", name) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stdout:
            if line.startswith("epoch 2/"):
                break
        running.send_signal(number)
        running.stdout.read()
        lines = running.stderr.read().splitlines()
        assert running.wait(60) == 128 + number
    assert lines[0] == f"stopped by {number.name}"
    assert "logs/tiny/version_0" in lines[1]
    torch.load(BEST, weights_only=True)
    if saves_last:
        assert lines[2].startswith("to go on: python train.py ")
        resumed = run(*lines[2].split("train.py ")[1].split(), "--trainer.max_epochs=3")
        note = "note: --ckpt_path last is logs/tiny/version_0/checkpoints/last.ckpt\n"
        assert (resumed.code, resumed.err) == (0, note)


def test_a_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import time; from touchstone.cli.stopping import Stopping\n"
        "with Stopping():\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        "    finally: print('closing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in ("ready\n", "closing\n"):
            assert running.stdout.readline() == line
            running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130


def test_a_signal_while_python_imports_ends_with_its_exit_code() -> None:
    with process("--help") as running:
        time.sleep(0.7)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "stopped by SIGINT\n")


def test_a_signal_leaves_imports_at_their_end() -> None:
    """Raised in the midst of them it would meet C++, which knows no exceptions of Python and aborts."""
    handlers, done = {number: signal.getsignal(number) for number in SIGNALS}, []

    def imports() -> None:
        with Stopping() as stopping, stopping.until_imported():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    try:
        with pytest.raises(SystemExit, match="130"):
            imports()
        assert done == ["all"]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_usage_error_of_a_real_process_is_all_that_stands_on_stderr() -> None:
    with process("fit", "--config", write(with_value(3, "trainer", "max_epoch"))) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (2, "")
    assert err.startswith("error: tiny.yaml, line ")
    assert len(err.splitlines()) <= 5


@pytest.mark.slow
def test_without_arguments_it_fits_and_tests_digits_and_shows_one_table() -> None:
    with process() as running:
        out, err = running.communicate(timeout=280)
    assert (running.returncode, err) == (0, "")
    assert out.count("worst case") == 1
    assert "300 test samples" in out
    assert "epoch 20/20" in out
    assert {"config.yaml", "report.json", "verdicts.npz"} <= {
        path.name for path in Path("logs/digits/version_0").iterdir()
    }
