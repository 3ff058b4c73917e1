"""Where the figures of a report come from: fingerprints of weights and samples, and the commit of the code."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Mapping
from functools import cache

from torch import Tensor

from touchstone.attacks.judge.untouched import checksum

from .samples import Samples

_MODULUS = 1 << 64


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that change with any bit of a state dict, and with any name in it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        part = int(checksum(value.detach())) if isinstance(value, Tensor) and value.numel() else value
        digest.update(f"{name}={part};".encode())
    return digest.hexdigest()[:16]


def samples_fingerprint(samples: Samples) -> int:
    """A number that changes with the pixels, the label or the id of any sample; of several parts, the sum counts.

    So it does not depend on batches, their order, or the number of processes.
    """
    x, rows = samples.x.detach().cpu().contiguous().numpy(), zip(samples.ids.tolist(), samples.y.tolist(), strict=True)
    return (
        sum(
            int.from_bytes(hashlib.sha256(f"{number},{label},{zlib.crc32(x[row])}".encode()).digest()[:8], "big")
            for row, (number, label) in enumerate(rows)
        )
        % _MODULUS
    )


def as_text(fingerprint: int) -> str:
    """A sum of `samples_fingerprint` as 16 hexadecimal digits."""
    return f"{fingerprint % _MODULUS:016x}"


@cache
def commit() -> str | None:
    """The commit of the repository around the current folder, with `+` where files differ from it; None for none."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=5)
    return run.stdout.strip()
