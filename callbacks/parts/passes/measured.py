"""`Measured`: what a measurement has returned of the samples of a pass, and what it must return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from .processes import gather_by_id

EXAMPLE = '{"confidence": model(x).softmax(1).amax(1)}'


class Measured:
    """The values of a pass by loader and name, one per sample."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._values: dict[int, dict[str, list[Tensor]]] = {}
        self._said_nan: set[str] = set()

    def begin(self) -> None:
        """Before a run, in which a mean is said to be NaN once."""
        self._said_nan.clear()

    def forget(self) -> None:
        """Before a pass: an interrupted one may have left something."""
        self._values.clear()

    def keep(self, ids: Tensor, values: Mapping[str, Tensor], loader_index: int) -> None:
        """Keeps the values of the next samples, `(N,)` by name.

        Raises:
            ValueError: they are not such, or have other names than those before them.
        """
        check_measured(self._who, values, len(ids))
        kept = self._values.setdefault(loader_index, {})
        named = {"_id": ids, **values}
        if kept and kept.keys() != named.keys():
            raise ValueError(
                f"{self._who}.measure: it must have the same names for every batch, "
                f"got {list(kept)[1:]} and then {list(values)}"
            )
        for name, tensor in named.items():
            kept.setdefault(name, []).append(tensor.detach())

    def gathered(self, loader_index: int) -> dict[str, Tensor]:
        """Those of all processes in the order of `_id`, on the CPU; a collective that drops them."""
        return gather_by_id({name: torch.cat(v) for name, v in self._values.pop(loader_index, {}).items()})

    def means(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means of what was gathered; one warning names those that are NaN."""
        for name, value in values.items():
            if name not in self._said_nan and (num_broken := int(value.isnan().sum())):
                self._said_nan.add(name)
                share = f"{num_broken} of {len(value)} samples"
                rank_zero_warn(f"{self._who}: {name!r} is NaN for {share}, and so is the mean of all")
        return {name: value.double().mean().float() for name, value in values.items() if name != "_id"}


def check_measured(name: str, measured: Any, num_samples: int) -> None:
    """Raises ValueError where these are not values by name, one real number per sample."""
    if not isinstance(measured, Mapping):
        kind = "None; does it end with `return`?" if measured is None else f"a {type(measured).__name__}"
        raise ValueError(f"{name}.measure: it must return values by name, such as {EXAMPLE}, got {kind}")
    for key, values in measured.items():
        if not isinstance(key, str):
            raise ValueError(f"{name}.measure: the names of values must be texts, got {key!r}")
        if not isinstance(values, Tensor):
            raise ValueError(
                f"{name}.measure: {key!r} must be a tensor with one value per sample, ({num_samples},), "
                f"got a {type(values).__name__}"
            )
        if values.shape != (num_samples,):
            raise ValueError(
                f"{name}.measure: {key!r} must have one value per sample, ({num_samples},), got {tuple(values.shape)}"
            )
        if values.is_complex():
            raise ValueError(f"{name}.measure: {key!r} must be real numbers, whose mean is logged, got {values.dtype}")
