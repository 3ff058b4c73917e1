"""`keep_freed_memory`: what tensors free is used again, unless the user has decided otherwise."""

from __future__ import annotations

import contextlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from touchstone.cli.kept_memory import keep_freed_memory

NUM_BLOCKS, MEGABYTES = 20, 64
COUNT_FAULTS = f"""
import resource, sys
from touchstone.cli.kept_memory import keep_freed_memory

print(keep_freed_memory() if sys.argv[1] == "keep" else None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({NUM_BLOCKS}):
    b"x" * ({MEGABYTES} << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(root: Path, *, keep: bool, **environment: str) -> tuple[str, int]:
    """What the function said, and how many pages the kernel had to find for equal blocks, one after the other."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", COUNT_FAULTS, "keep" if keep else "leave"]
    env = {**mine, "PYTHONPATH": str(root), **environment}
    said, num_faults = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return said, int(num_faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_memory_is_found_once_and_not_for_every_tensor(root: Path) -> None:
    said, num_faults = faults(root, keep=True)
    if said == "False":
        pytest.skip("another C library than glibc")
    _, before = faults(root, keep=False)
    assert num_faults < before / 10


def test_whoever_has_set_the_c_library_has_decided(root: Path) -> None:
    assert faults(root, keep=True, MALLOC_TOP_PAD_="131072")[0] == "False"


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError], ids=["windows", "macos", "musl"])
def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def confstr(name: str) -> str:
        raise error

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.confstr", confstr)
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("name", "keeps"), [("__main__", True), ("train", False)], ids=["run", "imported"])
def test_train_py_keeps_it_where_it_is_the_program(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, keeps: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("touchstone.cli.kept_memory.keep_freed_memory", lambda: calls.append("kept"))
    monkeypatch.setattr("touchstone.cli.jobs.run_job", lambda job, arguments, stopping: 0)
    monkeypatch.setattr("sys.argv", ["train.py", "verify"])
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(SystemExit) if keeps else contextlib.nullcontext():
        runpy.run_path(str(root / "train.py"), run_name=name)
    assert bool(calls) == keeps
