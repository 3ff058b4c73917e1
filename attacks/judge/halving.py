"""`Halving`: work on batches that become smaller where the memory does not suffice."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from ..core.out_of_memory import is_out_of_memory


class Halving:
    """A batch size, halved when a batch does not fit.

    What is measured of a sample does not depend on its batch, so that this changes no verdict. Where many calls share
    one, the first of them finds the size that fits, and the others begin with it.

    Args:
        size: samples at a time, >= 1.

    Attributes:
        size: the same, now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._too_large: int | None = None  # the first batch that did not fit and of which nothing has been said

    def run(self, num_samples: int, work: Callable[[slice], None], size: int | None = None) -> None:
        """Calls `work` with one part of the samples after another.

        Args:
            num_samples: how many there are.
            work: does something with a part, and nothing by halves: where it fails it is called again for less.
            size: samples at a time, where it is to be fewer.

        Raises:
            RuntimeError, MemoryError: not even one sample fits.
        """
        begin = 0
        while begin < num_samples:
            end = min(begin + min(size or self.size, self.size), num_samples)
            if self._fits(work, slice(begin, end)):
                begin = end
            else:
                self.size = min(self.size, (end - begin) // 2)

    def say(self) -> None:
        """Warns of the size that was found, if it became smaller since this was last called."""
        if self._too_large is None:
            return
        warnings.warn(
            f"a batch of {self._too_large} samples does not fit into memory: going on with {self.size} at a time, "
            "which changes no verdict",
            stacklevel=2,
        )
        self._too_large = None

    def _fits(self, work: Callable[[slice], None], part: slice) -> bool:
        num_samples = part.stop - part.start
        try:
            work(part)
            return True
        except (RuntimeError, MemoryError) as error:
            if num_samples < 2 or not is_out_of_memory(error):
                raise
        # Outside of the handler, whose error holds on to the tensors that are in the way.
        self._too_large = self._too_large or num_samples
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False
