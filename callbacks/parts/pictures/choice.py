"""`Choice`: which samples of a pass are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

Kept = TypeVar("Kept")
Rank = tuple[bool, int, int]  # whether it was wrong, how many such of its class came before it, its place in the pass


class Choice(Generic[Kept]):
    """Samples that were right before all others, and of as many classes as there are; no more than are shown.

    It depends on the order of the samples, and not on the batches in which they come.
    """

    def __init__(self, num_samples: int) -> None:
        self._num_samples, self._seen = num_samples, Counter[tuple[bool, int]]()
        self._kept: dict[Rank, Kept | None] = {}

    @property
    def is_final(self) -> bool:
        """Whether no later sample would be taken."""
        return len(self._kept) == self._num_samples and all(rank[:2] == (False, 0) for rank in self._kept)

    def take_in(self, was_right: Sequence[bool], labels: Sequence[int]) -> dict[int, Rank]:
        """The next samples of the pass: the rows of those that are taken for now, and what to keep each of them by."""
        rows: dict[Rank, int] = {}
        for row, (right, label) in enumerate(zip(was_right, labels, strict=True)):
            rows[not right, self._seen[right, label], self._seen.total()] = row
            self._seen[right, label] += 1
        best = sorted([*self._kept, *rows])[: self._num_samples]
        self._kept = {rank: self._kept.get(rank) for rank in best}
        return {rows[rank]: rank for rank in best if rank in rows}

    def keep(self, rank: Rank, what: Kept) -> None:
        """Keeps what is shown of a sample, until better ones come."""
        self._kept[rank] = what

    def in_order(self) -> list[Kept]:
        """What was kept, in the order of the pass."""
        kept = [self._kept[rank] for rank in sorted(self._kept, key=lambda rank: rank[2])]
        return [what for what in kept if what is not None]
