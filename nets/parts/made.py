"""`check_made`: where the parameters of a layer are made, and in which dtype, as torch's own layers take it."""

from __future__ import annotations

import torch


def check_made(owner: object, *, device: torch.device | str | int | None, dtype: torch.dtype | None) -> None:
    """Raises ValueError where these are no device of torch and no floating point dtype, nor None."""
    name = type(owner).__name__
    if device is not None:
        try:
            torch.device(device)
        except (RuntimeError, TypeError, ValueError):
            raise ValueError(
                f"{name}(device=...) must be a device of torch, as 'cpu' or 'cuda:0', got {device!r}"
            ) from None
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"{name}(dtype=...) must be a floating point dtype, as torch.float64, got {dtype!r}")
