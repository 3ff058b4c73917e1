"""What the balls of radius eps around an image have in common: the radius, the box, the mask, the check of images."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..core.eps import checksum, read_box, read_eps, write_eps
from ..core.per_sample import norms, widest
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from .mask import read_mask

Self = TypeVar("Self", bound="Ball")

# Sums of float32 rounding errors: relative to eps, and absolute for pixels near 1.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-6
MOST_ROUNDING = 1e-3  # of images that were moved out of the box by a resize or a normalization and back


class Ball(Threat):
    """A norm ball around each image, cut by the box of valid pixels; a subclass is a frozen dataclass (`repr=False`).

    Subclasses have the fields `eps` (a number > 0, a string such as `"8/255"`, or a tensor `(N,)` with one eps
    per sample), `box` (lowest and highest pixel value; None for no box) and `mask` (bool `(N, ...)` or `(1, ...)`,
    broadcastable to the images: only the pixels where it is True may change; None for all of them). They define the
    ball by `_noise`, `_direction` and `_project`, which never see a change outside the mask: the mask is kept here.
    """

    p: ClassVar[float]
    """The order of the norm."""
    whole_eps: ClassVar[bool] = False
    """Whether eps counts something, so that there is none between two whole numbers."""
    eps: float | str | Tensor  # type: ignore[assignment]
    box: tuple[float, float] | None
    mask: Tensor | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", read_eps(self.eps, f"{type(self).__name__}(eps=...)"))
        if self.box is not None:
            object.__setattr__(self, "box", read_box(self.box, f"{type(self).__name__}(box=...)"))
        if isinstance(self.mask, str):
            object.__setattr__(self, "mask", read_mask(self.mask, f"{type(self).__name__}(mask=...)"))
        if self.mask is not None:
            self._check_mask(self.mask)

    def _check_mask(self, mask: object) -> None:
        call = f"{type(self).__name__}(mask=...)"
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim < 2:
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            raise ValueError(
                f"{call} must be bool `(N, ...)` or `(1, ...)`, True where pixels may change, got {given:.80}"
            )
        empty = ~mask.flatten(1).any(1)
        if bool(empty.any()):
            hint = "; a mask (H, W) of images is `mask[None, None]`" if mask.ndim == 2 else ""
            raise ValueError(
                f"{call} must leave at least one pixel to change, row {int(empty.nonzero()[0])} has none{hint}"
            )

    def __repr__(self) -> str:
        # With checksums, since the signs of masking know two threats apart by what they print.
        mask = ""
        if isinstance(self.mask, Tensor):
            share = f"{float(self.mask.float().mean()):.2g} of the pixels may change"
            mask = f", mask=<{tuple(self.mask.shape)}: {share}, {checksum(self.mask)}>"
        box = "" if self.box == (0.0, 1.0) else f", box={self.box!r}"
        return f"{type(self).__name__}(eps={write_eps(self.eps)}{box}{mask})"

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        return self.project(x + self._noise(x, rng), x)

    def direction(self, grad: Tensor) -> Tensor:
        return self._direction(self.masked(grad, 0.0))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self._project(self.masked(x_adv, x), x)

    def farthest(self, grad: Tensor, x: Tensor) -> Tensor:
        """About the point of ball and box that lies farthest along a gradient, both `(N, ...)`: `(N, ...)`.

        Args:
            grad: float `(N, ...)`.
            x: the centres of the balls, like `grad`.
        """
        return self.project(x + 2 * self.radius(x) * self.direction(grad), x)

    @abstractmethod
    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        """A change drawn uniformly from the ball without its box, with the mask: like `x`."""

    @abstractmethod
    def _direction(self, grad: Tensor) -> Tensor:
        """`direction` for a gradient that is 0 outside the mask."""

    @abstractmethod
    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """`project` for an `x_adv` that is `x` outside the mask, where it must leave it to the last bit."""

    def masked(self, inside: Tensor, outside: Tensor | float) -> Tensor:
        """`inside` where the mask lets pixels change, `outside` elsewhere: `(N, ...)`."""
        return torch.where(self.mask.to(inside.device), inside, outside) if isinstance(self.mask, Tensor) else inside

    def num_free(self, x: Tensor) -> Tensor:
        """How many pixels of each sample the mask lets change: int64 `(N, 1)`, or `(1, 1)` for all samples.

        It lies on the device of the mask; without one on the CPU, so that nothing waits for an accelerator.
        """
        if not isinstance(self.mask, Tensor):
            return torch.full((1, 1), x.shape[1:].numel())
        return self.mask.expand(-1, *x.shape[1:]).flatten(1).sum(1, keepdim=True)

    def resized(self: Self, eps: Tensor) -> Self:
        """The same with another eps for each sample, float `(N,)`, > 0.

        It is not checked, since an accelerator would be waited for.
        """
        ball = copy(self)
        object.__setattr__(ball, "eps", eps)
        return ball

    def unboxed(self: Self) -> Self:
        """The same ball without its box: around zero, that of changes whose images are not known.

        It is for projections alone. A direction has the width of the box, and so comes from the ball itself.
        """
        ball = copy(self)
        object.__setattr__(ball, "box", None)
        return ball

    @property
    def width(self) -> float:
        """The width of the box, 1 without one: the unit of what an attack measures in pixels and not in eps."""
        return 1.0 if self.box is None else self.box[1] - self.box[0]

    def radius(self, x: Tensor) -> Tensor:
        """Eps in the dtype and on the device of `x`, `(N, ...)`, shaped to multiply it row by row."""
        assert not isinstance(self.eps, str)  # read in __post_init__
        if not isinstance(self.eps, Tensor):  # made where it is used: an accelerator waits for what is copied to it
            return x.new_full([1] * x.ndim, self.eps)
        return self.eps.to(x).reshape(-1, *[1] * (x.ndim - 1))

    def radii(self, x: Tensor) -> Tensor:
        """Eps of each sample of `x`, `(N, ...)`, in its dtype and on its device: `(N,)`."""
        return self.radius(x).flatten().expand(len(x))

    def clip(self, x: Tensor) -> Tensor:
        """`x` with every pixel inside the box."""
        return x if self.box is None else x.clamp(*self.box)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The norm of the change, float `(N,)`; infinite where a pixel outside the mask has changed at all."""
        length = self._length(x_adv, x)
        if not isinstance(self.mask, Tensor):
            return length
        kept = (self.mask.to(x.device) | (x_adv == x)).flatten(1).all(1)
        return torch.where(kept, length, torch.inf)

    def _length(self, x_adv: Tensor, x: Tensor) -> Tensor:
        wide = widest(x.device)
        return norms(x_adv.to(wide) - x.to(wide), self.p)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        distance = self.distance(x_adv, x)
        inside = distance <= self.radius(distance) * (1 + RELATIVE_TOLERANCE) + self._rounding(x_adv, x)
        if self.box is not None:
            low, high = self.box
            pixels = x_adv.flatten(1)
            inside &= ((pixels >= low) & (pixels <= high)).all(1)
        return inside

    def _rounding(self, x_adv: Tensor, x: Tensor) -> float | Tensor:
        """How much of the distance may be rounding of pixels to float32: one number, or one per sample, `(N,)`."""
        if self.box is not None:
            return ABSOLUTE_TOLERANCE * max(1.0, *map(abs, self.box))
        # Without a box each pixel has a size of its own, so that one of 50,000 is no leave for those near 1. What
        # rounding adds is at most as long, in units of these sizes, as where all pixels are of one.
        wide = widest(x.device)
        change, size = (x_adv.to(wide) - x.to(wide)).abs().flatten(1), x.to(wide).abs().clamp_min(1).flatten(1)
        weight = torch.ones_like(change)
        if self.p != float("inf"):
            weight = change * size / norms(change * size, self.p).clamp_min(torch.finfo(wide).tiny)[:, None]
        rounded = (change - ABSOLUTE_TOLERANCE * size * weight).clamp_min(0)
        return norms(change, self.p) - norms(rounded, self.p)

    def check_input(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(f"images must be floating point, got {x.dtype}; for uint8 use `x.float() / 255`")
        if isinstance(self.mask, Tensor):
            fits = zip(self.mask.shape[1:], x.shape[1:], strict=False)
            if self.mask.ndim != x.ndim or any(mine not in (1, theirs) for mine, theirs in fits):
                wanted = ", ".join("1" if size == 1 else f"1 or {size}" for size in x.shape)
                nones = ", ".join(["None"] * max(1, x.ndim - self.mask.ndim))
                raise ValueError(
                    f"{type(self).__name__}(mask=...) must have the shape ({wanted}) for images {tuple(x.shape)}, "
                    f"got {tuple(self.mask.shape)}; one mask for all samples is `mask[{nones}]`"
                )
        if self.box is None or not x.numel():
            return
        # Its ends as pixels have them: those of half precision are computed in float32.
        low, high = torch.tensor(self.box, dtype=torch.promote_types(x.dtype, torch.float32)).tolist()
        smallest, largest = (float(end) for end in x.detach().aminmax())
        if not (smallest >= low and largest <= high):
            given = f"images must lie in [{low:g}, {high:g}], got values from {smallest:.9g} to {largest:.9g}; "
            broken = x.isnan().flatten(1).any(1)
            if bool(broken.any()):
                row = int(broken.nonzero()[0])
                raise ValueError(given + f"{int(broken.sum())} of {len(x)} images hold NaN, the first is row {row}")
            rounding = max(MOST_ROUNDING, torch.finfo(x.dtype).eps * max(map(abs, self.box)))
            if max(low - smallest, largest - high) < rounding:
                pixels = "x" if x.dtype.itemsize >= 4 else "x.float()"  # half precision may have no such ends
                ends = ", ".join(f"{end:g}" if float(f"{end:g}") == end else repr(end) for end in self.box)
                raise ValueError(given + f"rounding may move them so far: clip them by `{pixels}.clamp({ends})`")
            raise ValueError(
                given
                + ("divide by 255; " if smallest >= 0 and largest > 2 else "")
                + "if the batch is already normalized, give `normalization=(mean, std)` to the callback, "
                "or put the normalization inside the model (`touchstone.nets.Normalize`)"
            )
