"""`ChangeSize`: how large a change of a picture is, and how sparse."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

HALF_A_GREY_LEVEL = 0.5 / 255  # in pixels of [0, 1]; what is less may well be lost in a file


@dataclass(frozen=True)
class ChangeSize:
    """Lengths in pixels of [0, 1].

    Attributes:
        l1, l2, largest: the L1 and the L2 length, and the largest change of a value.
        unchanged: share of the values that change by less than half a grey level, in [0, 1].
    """

    l1: float
    l2: float
    largest: float
    unchanged: float

    @classmethod
    def of(cls, change: Tensor) -> ChangeSize:
        """Of one change, float `(D,)`."""
        sizes = change.abs()
        unchanged = (sizes < HALF_A_GREY_LEVEL).float().mean()
        return cls(float(sizes.sum()), float(change.norm()), float(sizes.max()), float(unchanged))

    def cells(self) -> list[str]:
        """As in a table."""
        return [f"{self.l1:.1f}", f"{self.l2:.3f}", f"{self.largest:.4f}", f"{self.unchanged:.4f}"]

    def __str__(self) -> str:
        return (
            f"L1 {self.l1:.0f}, L2 {self.l2:.2f}, at most {self.largest:.3f}, "
            f"{self.unchanged:.0%} of the values unchanged"
        )
