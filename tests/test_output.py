"""What cannot be printed ends no run."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from touchstone.cli.output import Output

from .command_lines import ROOT, TINY, write

FULL = Path("/dev/full")
LOST = "stdout is lost (No space left on device): the run goes on without it"


def called(*arguments: str, stdout: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120)


@pytest.fixture
def full() -> Any:
    """A file on a disk without room."""
    if not FULL.exists():
        pytest.skip(f"there is no {FULL}")
    with FULL.open("w") as file:
        yield file


@pytest.mark.slow
def test_a_training_whose_stdout_is_full_ends_as_any_other(here: Path, full: Any) -> None:
    ended = called("fit", "--config", write(TINY), stdout=full)
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (0, LOST)
    assert ended.stderr.count("No space left") == 1
    run = Path("logs/tiny/version_0")
    assert (run / "report.json").is_file()
    assert (run / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_help_that_cannot_be_printed_is_a_failure(here: Path, full: Any) -> None:
    ended = called("--help", stdout=full)
    assert (ended.returncode, ended.stderr) == (1, f"{LOST}\n")


class Refusing(io.StringIO):
    """A stream that takes so many texts."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, text: str) -> int:
        if not self.room:
            raise BrokenPipeError(32, "Broken pipe")
        self.room -= 1
        return super().write(text)


def test_a_stream_that_has_failed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Refusing(room=1), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with Output() as output:
        sys.stdout.write("first ")
        assert not output.is_lost
        print("second", flush=True)
        out.room = 5
        print("third")
        assert output.is_lost
    assert (out.getvalue(), sys.stdout, sys.stderr) == ("first ", out, err)
    assert err.getvalue() == "stdout is lost (Broken pipe): the run goes on without it\n"


def test_stderr_that_is_gone_too_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(room=0))
    monkeypatch.setattr(sys, "stderr", Refusing(room=0))
    with Output():
        print("lost")
        print("lost", file=sys.stderr)
    monkeypatch.setattr(sys, "stdout", None)
    with Output():
        print(sys.stdout.isatty())
