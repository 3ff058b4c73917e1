"""`smooth_backward`: gradients that see beyond the kink of a ReLU.

Source: the idea of a backward that is smoother than the forward, as in Athalye, Carlini and Wagner, "Obfuscated
gradients give a false sense of security", 2018, section 4.1.1 (BPDA); here for the ReLU alone.
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

WIDTH = 0.1  # of the mean size of what a layer's units are given

_RELUS: frozenset[Callable[..., Tensor]] = frozenset({F.relu, torch.relu, Tensor.relu})
_RELUS_IN_PLACE: frozenset[Callable[..., Tensor]] = frozenset({torch.relu_, Tensor.relu_})


class smooth_backward(TorchFunctionMode):  # noqa: N801, as torch's own contexts are named
    """Inside, the slope of a ReLU is a sigmoid instead of a step; what a model gives stays what it is.

    A unit at rest passes no gradient, and where many are at rest, as in nets trained to be robust, no step along the
    gradient wakes them. The sigmoid is so wide that units a tenth of the mean size below 0 still pass a quarter. Each
    sample has its own width for each layer, so that its gradient is the same in any batch. Inside `vmap` and other
    transforms of `torch.func`, which may hide the axis of the samples, a ReLU is left as it is.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (*args, *(kwargs or {}).values())
        is_relu = func in _RELUS or func in _RELUS_IN_PLACE
        # What has no axis beside that of the samples is no layer's output.
        if is_relu and given[0].ndim > 1 and not inside_a_transform():
            in_place = func in _RELUS_IN_PLACE or func is F.relu and True in given[1:]
            return (_SmoothInPlace if in_place else _Smooth).apply(given[0])
        return func(*args, **(kwargs or {}))


class _Smooth(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        size = x.abs().flatten(1).mean(1).clamp_min(torch.finfo(x.dtype).tiny)
        return grad * torch.sigmoid(x / (WIDTH * size.view(-1, *[1] * (x.ndim - 1))))


class _SmoothInPlace(_Smooth):
    """Writes into what it is given, which a model may use again: `x + conv(relu_(x))` adds what is left of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.clone())
        ctx.mark_dirty(x)
        return x.relu_()
