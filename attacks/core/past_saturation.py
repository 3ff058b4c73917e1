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

WIDTH = 0.3  # of the mean size of what a layer's units are given

_BOUNDED: frozenset[Callable[..., Tensor]] = frozenset(
    {torch.tanh, Tensor.tanh, F.tanh, torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.hardtanh, F.hardsigmoid, F.relu6}
)


class past_saturation(TorchFunctionMode):  # noqa: N801, as torch's own contexts are named
    """Inside, bounded units pass gradients as if they were wider; what a model gives stays what it is.

    The slope of a saturated sigmoid is nothing beside that of one at 0, and where many saturate, no step along the
    gradient turns them back. Here each has the slope of a unit as much wider as what its layer is given, on average, is
    larger than where units saturate. Each sample has its own width for each layer, so that its gradient is the same in
    any batch.

    Args:
        widens: whether it does so; False only looks how wide units would be.

    Attributes:
        widest: of each sample the widest units so far, 1 for those that are as they are, float `(N,)`; None before any.
    """

    def __init__(self, *, widens: bool = True) -> None:
        super().__init__()
        self.widens = widens
        self.widest: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func not in _BOUNDED or not args or args[0].ndim < 2:  # with no axis beside the samples': no layer's
            return func(*args, **named)
        x = args[0]
        width = (WIDTH * x.detach().abs().flatten(1).mean(1)).clamp_min(1)
        if self.widest is None or len(self.widest) == len(width):
            self.widest = width if self.widest is None else self.widest.maximum(width)
        is_in_place = any(flag is True for flag in (*args[1:], *named.values()))
        if is_in_place or not self.widens:
            return func(*args, **named)
        return _Wider.apply(x, width.view(-1, *[1] * (x.ndim - 1)), lambda units: func(units, *args[1:], **named))


class _Wider(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, width)
        ctx.unit = unit
        return unit(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, width = ctx.saved_tensors
        with torch.enable_grad():
            leaf = (x / width).detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.unit(leaf), leaf, grad)
        return slope / width, None, None
