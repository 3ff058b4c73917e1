"""`find_checkpoint`: which file `last` and `best` mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .durable import damage


@dataclass(frozen=True)
class Found:
    """A checkpoint of an experiment.

    Attributes:
        path: the file.
        version: the number of its run, whose folder is `version_N`.
        damaged: newer or better suited ones that are not what was written, and why, in words.
    """

    path: Path
    version: int
    damaged: tuple[str, ...]


def find_checkpoint(experiment: Path, name: str) -> Found | None:
    """The checkpoint of this name in the newest run that has one; None where there is none.

    Where `last` is damaged, the newest good one of that run takes its place, and then those of the runs before it;
    nothing takes the place of `best`.

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
            return Found(path, version, tuple(damaged))
        damaged.append(f"{path} is damaged: {problem}")
    if damaged:
        raise ValueError(damaged[0] + (f", and so are {len(damaged) - 1} others" if damaged[1:] else ""))
    return None


def _candidates(experiment: Path, name: str) -> Iterator[tuple[int, Path]]:
    runs = {int(run.name[8:]): run for run in experiment.glob("version_*") if run.name[8:].isdecimal()}
    for version in sorted(runs, reverse=True):
        paths = sorted((runs[version] / "checkpoints").glob("*.ckpt"), key=lambda path: -path.stat().st_mtime)
        named = [path for path in paths if path.stem == name]
        yield from ((version, path) for path in named)
        if name == "last":
            yield from ((version, path) for path in paths if path not in named)
        elif named:
            return
