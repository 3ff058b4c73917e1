"""`FirstSamples`: the first samples of a pass, the same ones in any number of processes."""

from __future__ import annotations

from .processes import gather, gather_by_id
from .samples import Samples


class FirstSamples:
    """Keeps those samples of each data loader that have the smallest ids."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self._kept: dict[int, list[Samples]] = {}

    def keep(self, samples: Samples, loader_index: int) -> None:
        """Keeps what belongs to them."""
        first = samples.take(samples.ids < self._num_samples)
        if len(first):
            self._kept.setdefault(loader_index, []).append(first)

    def gather(self, loader_index: int) -> Samples | None:
        """Those of all processes in the order of their ids, on the CPU; None where there are none. A collective.

        Of samples of several shapes, those that are shaped as the first.
        """
        kept = self._kept.pop(loader_index, [])
        shapes = [shape for shape in gather(kept[0].x.shape[1:] if kept else None) if shape is not None]
        kept = [part for part in kept if part.x.shape[1:] == shapes[0]]
        mine = Samples.join(kept) if kept else None
        found = gather_by_id({} if mine is None else {"x": mine.x, "y": mine.y, "_id": mine.ids})
        return Samples(found["x"], found["y"], found["_id"]) if found else None

    def forget(self) -> None:
        """Drops what an interrupted pass has left."""
        self._kept.clear()
