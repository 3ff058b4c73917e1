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
        version: of its run: a number N, whose folder is `version_N`, or the name of the folder.
        damaged: newer or better suited ones that are not what was written, and why, in words.
    """

    path: Path
    version: int | str
    damaged: tuple[str, ...]


def find_checkpoint(experiment: Path, name: str, version: int | str | None = None) -> FoundCheckpoint | None:
    """The checkpoint of this name in a run, or in the newest that has one; None where there is none.

    `last` is the one of the newest run that has taken the most steps, whatever its name. Where it is damaged, the next
    one takes its place, and then those of the runs before it; nothing takes the place of `best`.

    Args:
        experiment: the folder with the runs, `version_0` and so on.
        name: `"last"` or `"best"`.
        version: the only run to look into; None for all that have a number.

    Raises:
        ValueError: those that might be meant are all damaged.
    """
    damaged: list[str] = []
    for of_run, path in _candidates(experiment, name, version):
        problem = damage(path)
        if problem is None:
            return FoundCheckpoint(path, of_run, tuple(damaged))
        damaged.append(f"{path} is damaged: {problem}")
    if damaged:
        raise ValueError(damaged[0] + (f", and so are {len(damaged) - 1} others" if damaged[1:] else ""))
    return None


def folder_of(experiment: Path, version: int | str) -> Path:
    """The folder of a run, as Lightning's loggers call it."""
    return experiment / (version if isinstance(version, str) else f"version_{version}")


def runs_with_checkpoint(experiment: Path, name: str) -> tuple[list[str], Path | None]:
    """The folders, whatever they are called, with a file of this name, `"best"`, or for `"last"` with any.

    And of the first of them that file, or the first to look at; None where there is none.
    """
    found: dict[str, list[Path]] = {}
    for folder in sorted(experiment.glob("*/checkpoints")):
        paths = [path for path in folder.glob("*.ckpt") if name == "last" or path.stem == name]
        if paths:
            found[folder.parent.name] = paths
    of_first = next(iter(found.values()), None)  # those of one run alone: to order them is to open them
    return list(found), None if of_first is None else _newest_first(of_first)[0]


def _candidates(experiment: Path, name: str, version: int | str | None) -> Iterator[tuple[int | str, Path]]:
    numbers = [int(run.name[8:]) for run in experiment.glob("version_*") if run.name[8:].isdecimal()]
    for of_run in sorted(numbers, reverse=True) if version is None else [version]:
        paths = list((folder_of(experiment, of_run) / "checkpoints").glob("*.ckpt"))
        if name == "last":
            yield from ((of_run, path) for path in _newest_first(paths))
        elif named := [path for path in paths if path.stem == name]:
            yield of_run, named[0]
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
