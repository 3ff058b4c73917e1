"""`TableFile`: a table that all processes of a run write, row by row."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..passes.processes import gather

Row = Sequence[Any]


class TableFile:
    """A CSV file whose rows stand in the order of their samples, whichever process has had which.

    Every process of several writes a file of its own beside it, and `join` makes one of them; what was written so far
    is not lost when a process ends before.
    """

    def __init__(self, path: Path, rank: int, num_processes: int) -> None:
        self._path, self._num_processes = path, num_processes
        self._mine = path if num_processes == 1 else self._part(rank)
        self._has_begun = False

    def _part(self, rank: int) -> Path:
        return self._path.with_name(f"{self._path.stem}_rank_{rank}{self._path.suffix}")

    def write(self, position: int, row: Row, columns: Row) -> None:
        """Writes a row, and above the first one the columns; the position of the sample ascends from row to row."""
        place: Row = [] if self._num_processes == 1 else [position]  # a file of several begins its rows with it
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._mine.open("a" if self._has_begun else "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            if not self._has_begun:
                table.writerow([*place, *columns])
            self._has_begun = True
            table.writerow([*place, *row])

    def join(self) -> None:
        """Makes one file of those of all processes, on the first of them. A collective: all processes call it."""
        have_begun = gather(self._has_begun)  # by now all of them are written
        parts = [self._part(rank) for rank, has_begun in enumerate(have_begun) if has_begun]
        if self._num_processes == 1 or not parts or self._mine != self._part(0):
            return
        with ExitStack() as stack, self._path.open("w", newline="", encoding="utf-8") as file:
            tables = [csv.reader(stack.enter_context(part.open(newline="", encoding="utf-8"))) for part in parts]
            columns = [next(table) for table in tables][0]
            table = csv.writer(file)
            table.writerow(columns[1:])
            rows: Iterator[list[str]] = heapq.merge(*tables, key=lambda row: int(row[0]))
            table.writerows(row[1:] for row in rows)
        for part in parts:
            part.unlink()
