"""`is_out_of_memory`: whether an error says that less would have fitted."""

from __future__ import annotations

import re

import torch

_SIGNS = re.compile(
    "can't allocate memory"  # torch's allocator for CPUs
    "|not enough memory"  # the same on Windows
    "|CUBLAS_STATUS_ALLOC_FAILED"
    "|CUDNN_STATUS_ALLOC_FAILED"
    # oneDNN gives no cause with these, and the cause is nearly always its own memory; what it does not know is said of
    # a "primitive descriptor". Smaller batches end in the same error where it was something else.
    "|could not (create|execute) a (primitive(?! desc)|memory object)"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on whatever device; libraries say so in errors of several kinds."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SIGNS.search(str(error)) is not None
