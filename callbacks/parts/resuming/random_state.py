"""The global random states: kept in a checkpoint, and separate ones for what must not depend on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]
"""Tensors, numbers and lists by plain names, which load with `weights_only=True`."""


def random_state() -> RandomState:
    """The random states of torch, on the CPU and on every CUDA device in use, of numpy and of Python."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, next_gauss = random.getstate()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": devices,
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(numbers), next_gauss],
    }


def set_random_state(state: RandomState) -> None:
    """Sets what `random_state` gave; of CUDA devices, those that are there."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        for number, device in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device.cpu(), number)
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))


class RandomStream:
    """Random states of its own, which depend on a few numbers and on nothing else.

    Args:
        numbers: integers >= 0; other numbers, other streams.
    """

    def __init__(self, *numbers: int) -> None:
        self._seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
        self._state: tuple[Any, Any, Any] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, whatever draws from the global states of torch (CPU), numpy or Python draws from this stream."""
        outside = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        if self._state is None:
            torch.default_generator.manual_seed(self._seed)
            np.random.seed(self._seed % (1 << 32))
            random.seed(self._seed)
        else:
            _set(self._state)
        try:
            yield
        finally:
            self._state = (torch.get_rng_state(), np.random.get_state(), random.getstate())
            _set(outside)


def _set(state: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
