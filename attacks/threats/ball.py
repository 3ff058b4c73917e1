"""What the balls of radius eps around an image have in common: the radius, the box, the check of the images."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from ..core.per_sample import norms, widest
from ..core.threat import Threat

# Sums of float32 rounding errors: relative to eps, and absolute at the scale of pixels near 1.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-6


def parse_number(text: float | str, name: str) -> float:
    """Reads a number as people write an eps: `0.3`, `"0.3"` or `"8/255"`.

    Raises:
        ValueError: `text` is none of these; the message begins with `name`.
    """
    try:
        if isinstance(text, bool):
            raise TypeError
        return float(Fraction(text)) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise ValueError(f"{name} must be a number such as 0.03 or 8/255, got {text!r}") from None


class Ball(Threat):
    """A norm ball around each image, cut by the box of valid pixels; a subclass is a frozen dataclass.

    Subclasses have the fields `eps` (a number > 0, a string such as `"8/255"`, or a tensor `(N,)` with one eps
    per sample) and `box` (lowest and highest pixel value; None for no box).
    """

    p: ClassVar[float]
    """The order of the norm."""
    eps: float | str | Tensor  # type: ignore[assignment]
    box: tuple[float, float] | None

    def __post_init__(self) -> None:
        call = f"{type(self).__name__}(eps=...)"
        if isinstance(self.eps, Tensor):
            if not self.eps.is_floating_point() or self.eps.ndim > 1:
                raise ValueError(f"{call} as a tensor must be float with one eps per sample, `(N,)`")
            smallest = float(self.eps.min()) if self.eps.numel() else 1.0
        else:
            object.__setattr__(self, "eps", parse_number(self.eps, call))
            smallest = float(self.eps)
        if not 0 < smallest < float("inf"):
            raise ValueError(f"{call} must be > 0 and finite, got {smallest:g}")
        if self.box is not None:
            low, high = (float(bound) for bound in self.box)
            if not low < high:
                raise ValueError(f"{type(self).__name__}(box=...) must be (low, high), got {self.box!r}")
            object.__setattr__(self, "box", (low, high))

    def radius(self, x: Tensor) -> Tensor:
        """Eps in the dtype and on the device of `x`, `(N, ...)`, shaped to multiply it row by row."""
        assert not isinstance(self.eps, str)  # read in __post_init__
        return torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))

    def clip(self, x: Tensor) -> Tensor:
        """`x` with every pixel inside the box."""
        return x if self.box is None else x.clamp(*self.box)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        wide = widest(x.device)
        return norms(x_adv.to(wide) - x.to(wide), self.p)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        distance = self.distance(x_adv, x)
        inside = distance <= self.radius(distance) * (1 + RELATIVE_TOLERANCE) + ABSOLUTE_TOLERANCE
        if self.box is not None:
            low, high = self.box
            pixels = x_adv.flatten(1)
            inside &= ((pixels >= low) & (pixels <= high)).all(1)
        return inside

    def check_input(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(f"images must be floating point, got {x.dtype}; for uint8 use `x.float() / 255`")
        if self.box is None or not x.numel():
            return
        low, high = self.box
        smallest, largest = float(x.min()), float(x.max())
        if not (smallest >= low and largest <= high):
            raise ValueError(
                f"images must lie in [{low:g}, {high:g}], got values from {smallest:g} to {largest:g}; "
                + ("divide by 255; " if smallest >= 0 and largest > 2 else "")
                + "if the batch is already normalized, give `normalization=(mean, std)` to the callback, "
                "or put the normalization inside the model (`touchstone.nets.Normalize`)"
            )
