"""`read_eps` and its kind: an eps and a box as people write them, read, checked, and written again."""

from __future__ import annotations

import zlib
from fractions import Fraction

import torch
from torch import Tensor


def parse_number(text: float | str, option: str) -> float:
    """Reads a number as people write an eps: `0.3`, `"0.3"`, `"8/255"` or `"0.5/255"`.

    Raises:
        ValueError: `text` is none of these.
    """
    try:
        if isinstance(text, bool):
            raise TypeError
        if not isinstance(text, str):
            return float(text)
        above, *below = text.replace(" ", "").split("/")
        if len(below) > 1:
            raise ValueError
        return float(Fraction(above) / Fraction(below[0] if below else 1))
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise ValueError(f"{option} must be a number such as 0.03 or 8/255, got {text!r}") from None


def read_eps(eps: float | str | Tensor, option: str) -> float | Tensor:
    """Reads an eps, one for all samples or float `(N,)` with one for each.

    Raises:
        ValueError: it is neither, or not > 0 and finite.
    """
    if not isinstance(eps, Tensor):
        eps = parse_number(eps, option)
    elif not eps.is_floating_point() or eps.ndim > 1:
        raise ValueError(f"{option} as a tensor must be float with one eps per sample, `(N,)`")
    each = torch.as_tensor(eps).reshape(-1)
    broken = ~((each > 0) & each.isfinite())
    if bool(broken.any()):
        raise ValueError(f"{option} must be > 0 and finite, got {float(each[broken][0]):g}")
    return eps


def read_box(box: object, option: str) -> tuple[float, float]:
    """Reads the lowest and the highest value that a pixel can have.

    Raises:
        ValueError: `box` is no such pair.
    """
    try:
        low, high = map(float, () if isinstance(box, str) else box)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low = high = float("nan")
    if not -float("inf") < low < high < float("inf"):
        raise ValueError(f"{option} must be (low, high), two finite numbers, or None, got {box!r}")
    return low, high


def check_width(eps: float, width: float, option: str) -> None:
    """Raises ValueError where every pixel could leave a box of this width: the eps is meant in another unit."""
    if eps > width:
        raise ValueError(
            f"{option} must be <= {width:g}, the width of the box, got {eps:g}; "
            f"did you mean {eps if eps <= 128 else 8:g}/255?"
        )


def write_number(number: float, *, digits: int | None = None) -> str:
    """Writes an eps as people do: `8/255` where it is just that and no short decimal, else in so many digits or all."""
    parts = round(number * 255)
    if number < 1 and len(repr(number)) > 6 and parts / 255 == number:
        return f"{parts}/255"
    return repr(number) if digits is None else f"{number:.{digits}g}"


def write_eps(eps: float | str | Tensor) -> str:
    """Writes what `read_eps` gave; one for each sample with a checksum, since threats are known by what they print."""
    if isinstance(eps, str):
        return repr(eps)
    if not isinstance(eps, Tensor):
        return write_number(eps)
    if not eps.numel():
        return repr(eps)
    each = eps.detach().cpu().double()  # numpy knows no bfloat16
    return f"<{each.numel()} from {float(each.min()):g} to {float(each.max()):g}, {checksum(each)}>"


def checksum(values: Tensor) -> str:
    """What tells two tensors apart when they are printed: eight hexadecimal digits."""
    return f"{zlib.crc32(values.cpu().numpy().tobytes()):08x}"
