"""`Waiting`: samples that wait until there are as many as are attacked at a time, whatever the loader's batch size."""

from __future__ import annotations

from collections.abc import Mapping

from touchstone.attacks import Attack

from .samples import Samples


class Waiting:
    """Keeps the samples of each data loader until there are enough of one shape; all where an attack pools."""

    def __init__(self, num_samples: int, suite: Mapping[str, Attack]) -> None:
        self._num_samples = num_samples
        self._pooling = [name for name, attack in suite.items() if attack.pools]
        self._kept: dict[int, list[Samples]] = {}

    def add(self, samples: Samples, loader_index: int) -> list[Samples]:
        """Takes in the next samples of a loader, and gives what waits no longer.

        Raises:
            ValueError: an attack pools, and samples are not shaped as those before them.
        """
        before, ready = self._kept.get(loader_index), []
        if before and before[-1].x.shape[1:] != samples.x.shape[1:]:
            if self._pooling:
                raise ValueError(
                    f"attack {self._pooling[0]!r} wants to see all samples at once, which must have one shape, got "
                    f"{tuple(before[-1].x.shape[1:])} and {tuple(samples.x.shape[1:])}"
                )
            ready += self.rest(loader_index)
        kept = self._kept.setdefault(loader_index, [])
        kept.append(samples)
        if not self._pooling and sum(map(len, kept)) >= self._num_samples:
            ready += self.rest(loader_index)
        return ready

    def rest(self, loader_index: int) -> list[Samples]:
        """What still waits at the end of a pass: all of it as one, or nothing."""
        kept = self._kept.pop(loader_index, [])
        return [Samples.join(kept)] if kept else []

    def forget(self) -> None:
        """Drops what an interrupted pass has left."""
        self._kept.clear()
