"""`keep_freed_memory`: memory that one tensor gives back serves the next.

The C library of most Linux systems gives blocks above 32 MB back to the kernel as soon as they are freed, and what lies
free at the end of its heap as well. The next tensor of that size then waits until each of its pages is found and filled
with zeros, again.

Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST_KEPT = 1 << 30  # bytes: what is larger goes back, so that a whole data set does not stay
_LARGEST_REST = (1 << 31) - 1  # bytes that may lie idle at the end of the heap


def keep_freed_memory() -> bool:
    """Asks glibc to keep the memory that tensors free, for the process as a whole.

    Where one of its own variables (`MALLOC_...`, `GLIBC_TUNABLES`) is set, its user has decided, and nothing changes;
    nor does it with another C library.

    Returns:
        Whether glibc does so from now on, if it is where the process gets its memory.
    """
    decided = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if decided or not _is_glibc():
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError):  # a Python without libffi, or one that is linked statically
        return False
    # Before version 2.35 no threshold above 32 MB is taken: then nothing goes back at once, however large.
    kept = mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) or mallopt(_MMAP_MAX, 0)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _LARGEST_REST))


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows; macOS; other C libraries of Linux
        return False
