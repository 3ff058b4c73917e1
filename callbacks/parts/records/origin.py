"""Where the figures of a report come from: fingerprints of weights and samples, commit and versions of the code."""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from touchstone import __version__
from touchstone.attacks.judge.untouched import checksum

from ..passes.processes import gather
from ..passes.samples import Samples
from .commit import commit

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
    x = samples.x.detach().cpu().contiguous().view(torch.uint8).numpy()  # as bytes: numpy knows no bfloat16
    rows = zip(samples.ids.tolist(), samples.y.tolist(), strict=True)
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


def origin(trainer: pl.Trainer, module: pl.LightningModule, *, seed: int, fingerprint: int) -> dict[str, Any]:
    """What a report says of where its figures come from. Every process calls it; that of rank zero is whole.

    Args:
        trainer: measured.
        module: was measured.
        seed: of the attacks.
        fingerprint: the sum of `samples_fingerprint` over the samples of this process.
    """
    data = as_text(sum(gather(fingerprint)))
    if not trainer.is_global_zero:
        return {"seed": seed, "data": data}
    weights = weights_fingerprint(module.state_dict())
    return {"seed": seed, "weights": weights, "data": data, "commit": commit(), "versions": versions()}


def versions() -> dict[str, str]:
    """The versions of what measures."""
    return {
        "touchstone": __version__,
        "torch": str(torch.__version__),
        "lightning": str(pl.__version__),
        "python": platform.python_version(),
    }
