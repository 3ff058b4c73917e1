"""How soon `train.py` answers, and what the whole main job takes: `python benchmarks/startup.py`.

Every command runs in a Python of its own, in an empty folder. Nothing heavy is loaded here, so that the children's
peaks are their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import ratio, show, take_turns

ROOT = Path(__file__).resolve().parent.parent
TRAIN = str(ROOT / "train.py")
IMPORTS = "python -c 'import lightning.pytorch, torchvision'"


def run(*arguments: str, expected: int = 0) -> tuple[float, float, float]:
    """Runs a Python and gives its wall seconds, its CPU seconds and its peak memory in bytes.

    Raises:
        RuntimeError: it exits with another code than `expected`.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)  # getrusage(RUSAGE_CHILDREN), of this child alone
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    if child.returncode != expected:
        raise RuntimeError(f"python {' '.join(arguments)} exited with {child.returncode}, not {expected}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit


def main(num_turns: int = 7, small: bool = False) -> None:
    """Measures an answer against the imports that no Lightning program can do without, then the main job.

    Args:
        num_turns: how often each answer is measured.
        small: whether to leave out the main job, to see that it runs.
    """
    commands = {
        IMPORTS: lambda: run("-c", "import lightning.pytorch, torchvision"),
        "python train.py --help": lambda: run(TRAIN, "--help"),
        "python train.py fit --modle.lr 1 (a usage error)": lambda: run(TRAIN, "fit", "--modle.lr", "1", expected=2),
    }
    cpu_seconds: dict[str, list[float]] = {name: [] for name in commands}

    def wall_seconds(name: str) -> float:
        wall, cpu, _ = commands[name]()
        cpu_seconds[name].append(cpu)
        return wall

    seconds = take_turns({name: lambda name=name: wall_seconds(name) for name in commands}, num_turns)
    rows = [
        (name, f"{ratio(seconds, name, IMPORTS):.2f}", f"{ratio(cpu_seconds, name, IMPORTS):.2f}", f"{min(times):.1f}")
        for name, times in seconds.items()
    ]
    show("An answer", ("", "ratio", "of CPU seconds", "fastest, s"), rows)
    if not small:
        wall, cpu, peak = run(TRAIN)
        show(
            "The main job: fit, then test, on configs/digits.yaml",
            ("", "seconds", "CPU seconds", "peak memory, GB"),
            [("python train.py", f"{wall:.0f}", f"{cpu:.0f}", f"{peak / 1e9:.2f}")],
        )


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
