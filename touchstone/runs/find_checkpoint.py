"""`find_checkpoint`: which file `last` and `best` mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .durable import damage


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint of an experiment.

    Attributes:
        path: the file.
        version: the number of its run, whose folder is `version_N`.
        damaged: newer or better suited ones that are not what was written, and why, in words.
    """

    path: Path
    version: int
    damaged: tuple[str, ...]


def find_checkpoint(experiment: Path, name: str) -> FoundCheckpoint | None:
    """The checkpoint of this name in the newest run that has one; None where there is none.

    `last` is the one of the newest run that has taken the most steps, whatever its name. Where it is damaged, the next
    one takes its place, and then those of the runs before it; nothing takes the place of `best`.

    Args:
        experiment: the folder with the runs, `version_0` and so on.
        name: `"last"` or `"best"`.

    Raises:
        ValueError: those that might be meant are all damaged.
    """
    damaged: list[str] = []
    for version, path in _candidates(experiment, name):
        problem = damage(path)
        if problem is None:
            return FoundCheckpoint(path, version, tuple(damaged))
        damaged.append(f"{path} is damaged: {problem}")
    if damaged:
        raise ValueError(damaged[0] + (f", and so are {len(damaged) - 1} others" if damaged[1:] else ""))
    return None


def _candidates(experiment: Path, name: str) -> Iterator[tuple[int, Path]]:
    runs = {int(run.name[8:]): run for run in experiment.glob("version_*") if run.name[8:].isdecimal()}
    for version in sorted(runs, reverse=True):
        paths = list((runs[version] / "checkpoints").glob("*.ckpt"))
        if name == "last":
            yield from ((version, path) for path in _newest_first(paths))
        elif named := [path for path in paths if path.stem == name]:
            yield version, named[0]
            return


def _newest_first(paths: Sequence[Path]) -> list[Path]:
    """By the steps that were taken: an older `last.ckpt` stays where ModelCheckpoint begins to count `last-v1.ckpt`.

    Looks only into those that are not older than `last`; one that cannot be read is the first to be found damaged.
    """
    written = {path: path.stat().st_mtime for path in paths}
    since = next((written[path] for path in paths if path.stem == "last"), 0.0)
    found = {path: step_of(path) for path in paths if written[path] >= since}
    steps = {path: math.inf if step is None else step for path, step in found.items()}
    return sorted(paths, key=lambda path: (steps.get(path, -1), path.stem == "last", written[path]), reverse=True)


def step_of(path: Path) -> int | None:
    """The optimizer steps that had been taken when a checkpoint was written; None where it is none."""
    try:
        return torch.load(path, weights_only=True, mmap=True).get("global_step")
    except Exception:  # of many kinds, depending on what is wrong with the file
        return None
