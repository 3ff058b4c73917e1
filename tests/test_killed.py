"""Runs that are killed, with no chance to say or save anything."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .command_lines import ROOT, write
from .resumed_runs import PARTS, config, same, what_is_left

pytestmark = pytest.mark.usefixtures("here")


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", str(ROOT / "train.py"), "fit", "--config", "tiny.yaml", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")


def killed(seconds: float, *arguments: str, from_start: bool = False) -> tuple[str, int]:
    """Kills a run so long after its start, or after the end of an epoch; what it had printed, and its last epoch."""
    printed, epoch = "", 0
    with started(*arguments) as running:
        assert running.stdout is not None
        for line in running.stdout if not from_start else ():
            printed += line
            if found := re.match(r"epoch (\d+)/", line):
                epoch = int(found[1])
                break
        time.sleep(seconds)
        running.kill()
        rest = running.stdout.read()
    ends = [int(number) for number in re.findall(r"^epoch (\d+)/", rest, re.MULTILINE)]
    return printed + rest, max([epoch, *ends])


def check_killed_often(num_kills: int) -> None:
    draw = random.Random(0)
    Path("mine.py").write_text(PARTS)
    given = config()
    given["trainer"]["max_epochs"] = 100_000
    given["trainer"]["callbacks"].pop()  # which keeps a checkpoint of every epoch
    write(given)
    options: list[str] = []
    last_end = 0
    for number in range(num_kills):
        if number % 4 == 3:  # while it imports, or looks for its checkpoint, or restores it
            printed, end = killed(draw.uniform(0, 8), *options, from_start=True)
            last_end = max(last_end, end)
            continue
        printed, end = killed(draw.uniform(0, 1), *options)
        assert end > 0, printed
        if options:
            assert "Restored all states from the checkpoint" in printed
            first = int(re.findall(r"^epoch (\d+)/", printed, re.MULTILINE)[0])
            assert first >= last_end, "more was lost than the work since the last checkpoint"
        options, last_end = ["--ckpt_path", "last"], end
    num_epochs = str(last_end + 2)
    with started(*options, "--trainer.max_epochs", num_epochs) as running:
        assert running.stdout is not None
        printed = running.stdout.read()
    assert running.returncode == 0, printed
    never = ["--trainer.max_epochs", num_epochs, "--trainer.logger.init_args.name", "never"]
    with started(*never) as running:
        assert running.stdout is not None
        running.stdout.read()
    expected, got = what_is_left(Path("logs/never/version_0")), what_is_left(Path("logs/tiny/version_0"))
    assert [part for part in expected if part != "curves" and not same(expected[part], got[part])] == []
    assert [path.name for path in Path("logs/tiny").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_a_run_killed_twice_goes_on_and_ends_as_one_that_was_not() -> None:
    check_killed_often(2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_killed_a_hundred_times_goes_on_and_ends_as_one_that_was_not() -> None:
    check_killed_often(100)
