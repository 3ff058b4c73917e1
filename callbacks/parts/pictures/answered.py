"""`check_answered`: a net that puts out NaN for a picture has not said what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from touchstone.runs.shown import shown


def check_answered(call: str, outputs: Tensor, files: Sequence[Path], *, when: str = "") -> None:
    """Raises ValueError where the net's outputs are NaN, which `argmax` takes for the largest.

    Infinite ones stay: a class that is ruled out has the logit -inf.

    Args:
        call: who asks, for the message.
        outputs: logits or probabilities, `(N, classes)`.
        files: of the pictures, one for each row.
        when: which outputs these are, for the message, as ` after the attack pgd`.
    """
    broken = outputs.isnan().any(1).nonzero()[:, 0].tolist()
    if broken:
        raise ValueError(
            f"{call}: the net puts out NaN for {len(broken)} of {len(outputs)} pictures{when}, first for "
            f"{shown(files[broken[0]])}"
        )
