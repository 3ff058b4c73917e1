"""`check_measured`: what a measurement of one's own must return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

EXAMPLE = '{"confidence": model(x).softmax(1).amax(1)}'


def check_measured(name: str, measured: Any, num_samples: int) -> None:
    """Raises ValueError where these are not values by name, one real number per sample.

    Args:
        name: the class whose `measure` has returned them.
        measured: whatever it has.
        num_samples: of the batch.
    """
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
