"""`is_out_of_memory`: whether an error says that less would have fitted."""

from __future__ import annotations

import torch

_SIGNS = (
    "can't allocate memory",  # torch's allocator for CPUs
    "not enough memory",  # the same on Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on whatever device; libraries say so in errors of several kinds."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
