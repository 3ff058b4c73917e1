"""Candidates measured side by side: they take turns, and what counts is the ratio within a turn."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

Seconds = dict[str, list[float]]


def take_turns(
    candidates: Mapping[str, Callable[[], object]], num_turns: int, clock: Callable[[], float] = time.perf_counter
) -> Seconds:
    """The seconds of every candidate in every turn, after one turn to warm up.

    Every second turn goes backwards, so that a machine that grows faster or slower favours nobody.

    Args:
        candidates: what to measure, by name. One that returns a float says itself which seconds count.
        num_turns: how often each is measured, >= 1.
        clock: gives the present time in seconds.
    """
    names = list(candidates)
    seconds: Seconds = {name: [] for name in names}
    for work in candidates.values():
        work()
    for turn in range(num_turns):
        for name in names if turn % 2 == 0 else reversed(names):
            start = clock()
            own = candidates[name]()
            seconds[name].append(own if isinstance(own, float) else clock() - start)
    return seconds


def ratio(seconds: Seconds, name: str, to: str) -> float:
    """The median over the turns of a candidate's seconds over those of another in the same turn."""
    return median(mine / theirs for mine, theirs in zip(seconds[name], seconds[to], strict=True))


def ratio_cells(seconds: Seconds, name: str, to: str) -> tuple[str, str, str]:
    """For a table: the median of the ratios, the ratio of the fastest turns, and the fastest turn in milliseconds."""
    fastest = min(seconds[name])
    return f"{ratio(seconds, name, to):.3f}", f"{fastest / min(seconds[to]):.3f}", f"{1000 * fastest:.0f}"


RATIO_HEADERS = ("ratio", "of the fastest", "fastest, ms")


def set_up(num_threads: int | None) -> Callable[[], float]:
    """Keeps freed memory as `train.py` does, sets torch's threads, and gives the clock to measure them by.

    On a machine with other work, an operation of several threads waits for the one that was interrupted. One thread
    measured by its own CPU seconds is disturbed least.

    Args:
        num_threads: None for torch's choice.
    """
    import torch

    from touchstone.cli.kept_memory import keep_freed_memory

    keep_freed_memory()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def show(title: str, headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a table, and below it the machine and the versions."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=machine(), caption_justify="left")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=120).print(table)


def machine() -> str:
    """The processor, its cores, and the versions of what is measured. Loads none of it."""
    packages = ("torch", "torchvision", "lightning", "foolbox", "torchattacks")
    versions = (f"{package} {installed}" for package in packages if (installed := version_of(package)))
    return f"{os.cpu_count()} cores of {_processor()}; Python {platform.python_version()}, {', '.join(versions)}"


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or 'an unnamed processor'} ({platform.machine()})"
