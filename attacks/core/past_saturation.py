"""`past_saturation`: gradients that see beyond where a unit saturates.

Source: the idea of a backward that is smoother than the forward, as in Athalye, Carlini and Wagner, "Obfuscated
gradients give a false sense of security", 2018, section 4.1.1 (BPDA); here for units that are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from .transforms import inside_a_transform

WIDTH = 0.3  # of the mean size of what a layer's units are given

_FARTHEST = 1e3  # what lies beyond is a mask, such as -1e4 where attention may not look, and counts for nothing

_IN_PLACE: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    torch.tanh_: torch.tanh,
    Tensor.tanh_: torch.tanh,
    torch.sigmoid_: torch.sigmoid,
    Tensor.sigmoid_: torch.sigmoid,
}
_BOUNDED: frozenset[Callable[..., Tensor]] = frozenset(
    {torch.tanh, Tensor.tanh, F.tanh, torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.hardtanh, F.hardsigmoid, F.relu6}
)


class past_saturation(TorchFunctionMode):  # noqa: N801, as torch's own contexts are named
    """Inside, bounded units pass gradients as if they were wider; what a model gives stays what it is.

    The slope of a saturated sigmoid is nothing beside that of one at 0, and where many saturate, no step along the
    gradient turns them back. Here each has the slope of a unit as much wider as what its layer is given, on average, is
    larger than where units saturate. Each sample has its own width for each layer, so that its gradient is the same in
    any batch; a layer whose first axis is not that of the samples is left as it is, but for one that happens to be as
    long.

    Args:
        num_samples: how many are passed through the model at a time, >= 1.
        widens: whether it does so; False only looks how wide units would be.

    Attributes:
        widest: of each sample the widest units so far, 1 for those that are as they are, float `(N,)`; None before any.
    """

    def __init__(self, num_samples: int, *, widens: bool = True) -> None:
        super().__init__()
        self.num_samples, self.widens = num_samples, widens
        self.widest: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func not in _BOUNDED and func not in _IN_PLACE:
            return func(*args, **named)
        x, *options = args if args else (named["input"],)
        if not self._is_a_layer(x):
            return func(*args, **named)
        width = _width_of(x.detach())
        self.widest = width if self.widest is None else self.widest.maximum(width)
        if not self.widens:
            return func(*args, **named)
        named.pop("input", None)
        is_in_place = func in _IN_PLACE or any(flag is True for flag in (*options, *named.values()))
        options = [False if value is True else value for value in options]
        named = {name: False if value is True else value for name, value in named.items()}
        unit = _IN_PLACE.get(func, func)
        kind = _WiderInPlace if is_in_place else _Wider
        return kind.apply(x, width, lambda units: unit(units, *options, **named))

    def _is_a_layer(self, x: Tensor) -> bool:
        """Whether it is one row per sample, on the way from the samples, and no part that a transform sees of it."""
        is_one_each = x.requires_grad and x.ndim > 1 and x.shape[0] == self.num_samples
        return is_one_each and not inside_a_transform()


def _width_of(x: Tensor) -> Tensor:
    """How wide the units of each sample are, >= 1, float `(N,)`."""
    size = x.abs().flatten(1)
    counts = size <= _FARTHEST
    return (WIDTH * size.where(counts, 0).sum(1) / counts.sum(1).clamp_min(1)).clamp_min(1)


class _Wider(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
        # Not x itself, which the model may change in place; and one tensor, as the unit itself saves, so that a
        # checkpoint that runs it again, outside of this, finds as many.
        ctx.width, ctx.unit = width.view(-1, *[1] * (x.ndim - 1)), unit
        ctx.save_for_backward(x / ctx.width)
        return unit(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (narrowed,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = narrowed.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.unit(leaf), leaf, grad)
        return slope / ctx.width, None, None


class _WiderInPlace(_Wider):
    """Writes into what it is given, which a model may use again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
        output = _Wider.forward(ctx, x, width, unit)
        ctx.mark_dirty(x)
        return x.copy_(output)
