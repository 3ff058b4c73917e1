"""Convolution, max pooling and SGD written out as equations, and `HandmadeNet`, made of them.

They call none of torch's layers, gradients or optimizers: each function states its forward and its backward. The
`ReLU` between them in `HandmadeNet`, and its linear layer at the end, are torch's.
Source of the equations: Goodfellow, Bengio and Courville, "Deep learning", 2016, sections 8.3 and 9.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer

from touchstone.options import check_between, check_choice, check_counts, check_positive

from .parts.without_autocast import autocast_off, without_autocast

Boundary = Literal["zeros", "reflect", "circular"]
BOUNDARIES = ("zeros", "reflect", "circular")


def taps(length: int, kernel_size: int, boundary: Boundary) -> tuple[Tensor, Tensor]:
    """Where each output of a layer of stride 1 looks, so that it is as long as its input.

    Output t looks at t - p, ..., t - p + K - 1, with p = floor((K - 1) / 2). What lies outside the input is 0, or the
    input mirrored at its first and last sample (which are not repeated), or the input begun anew.

    Returns:
        Positions in the input, int64 `(L, K)`, and which of them are not 0 by the boundary, bool `(L, K)`.
    """
    places = torch.arange(length)[:, None] + torch.arange(kernel_size) - (kernel_size - 1) // 2
    inside = (places >= 0) & (places < length)
    if boundary == "circular":
        return places % length, torch.ones_like(inside)
    if boundary == "reflect":
        return length - 1 - (length - 1 - places.abs()).abs(), torch.ones_like(inside)
    return places.clamp(0, length - 1), inside


class _Convolve(torch.autograd.Function):
    """y[n,o,t] = b[o] + sum over c, k of w[o,c,k] x[n,c,place(t,k)]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, boundary: Boundary) -> Tensor:
        places, counts = (part.to(x.device) for part in taps(x.shape[2], weight.shape[2], boundary))
        seen = x[:, :, places] * counts  # (N, C, L, K)
        ctx.save_for_backward(seen, weight, places, counts)
        ctx.shape = x.shape
        return torch.einsum("nclk,ock->nol", seen, weight) + bias[:, None]

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With g = dE/dy: dE/dw[o,c,k] = sum over n, t of g[n,o,t] x[n,c,place(t,k)]; dE/db[o] = sum of g[n,o,t];
        dE/dx[n,c,i] = sum over all o, t, k with place(t,k) = i of g[n,o,t] w[o,c,k].
        """  # noqa: D205
        (grad,), (seen, weight, places, counts) = grads, ctx.saved_tensors
        of_weight = torch.einsum("nol,nclk->ock", grad, seen)
        of_seen = torch.einsum("nol,ock->nclk", grad, weight) * counts
        of_x = grad.new_zeros(ctx.shape).index_add_(2, places.flatten(), of_seen.flatten(2))
        return of_x, of_weight, grad.sum((0, 2)), None


class _MaxPool(torch.autograd.Function):
    """y[n,c,t] = the largest of x[n,c,place(t,k)] over k; positions outside the input do not take part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: int) -> Tensor:
        places, counts = (part.to(x.device) for part in taps(x.shape[2], kernel_size, "zeros"))
        seen = x[:, :, places].masked_fill(~counts, -torch.inf)
        largest, winner = seen[..., 0], torch.zeros_like(seen[..., 0], dtype=torch.int64)
        for k in range(1, kernel_size):
            is_larger = (seen[..., k] > largest) | seen[..., k].isnan()  # of equals, the first stays
            largest = torch.where(is_larger, seen[..., k], largest)
            winner = winner.masked_fill(is_larger, k)
        ctx.save_for_backward(places.expand_as(seen).gather(3, winner[..., None])[..., 0])
        ctx.shape = x.shape
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """dE/dx[n,c,i] = the sum of g[n,c,t] over all t whose largest is x[n,c,i]."""
        return grads[0].new_zeros(ctx.shape).scatter_add_(2, ctx.saved_tensors[0], grads[0]), None


def _check_signals(layer: str, x: Tensor, channels: int | None = None) -> None:
    """Raises ValueError where `x` is not float `(N, channels, L)`: a product would repeat a single channel."""
    if not x.is_floating_point():
        raise ValueError(f"{layer} takes signals of real floating point numbers, got {x.dtype}")
    if x.ndim != 3 or channels not in (None, x.shape[1]):
        wanted = "C" if channels is None else channels
        raise ValueError(f"{layer} takes signals (N, {wanted}, L), got the shape {tuple(x.shape)}")


class Conv1d(nn.Module):
    """A convolution (as everywhere in deep learning: a correlation) of stride 1 that keeps the length.

    Computes in the dtype of its weights, in autocast too.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: samples that an output looks at, >= 1; of an even number one more lies after it than before.
        boundary: what lies outside the input: `"zeros"`, `"reflect"` (the input mirrored) or `"circular"`.

    Raises:
        ValueError: a value is outside its range, or the input has another shape or is not real floating point.

    Shape:
        float `(N, in_channels, L)` to `(N, out_channels, L)`; to be mirrored, L must be > kernel_size / 2.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, boundary: Boundary = "zeros") -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        check_choice("Conv1d(boundary=...)", boundary, tuple(BOUNDARIES))
        self.in_channels, self.boundary = in_channels, boundary
        bound = (in_channels * kernel_size) ** -0.5
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        _check_signals("Conv1d", x, self.in_channels)
        kernel_size = self.weight.shape[2]
        if self.boundary != "zeros" and kernel_size // 2 > x.shape[2] - (self.boundary == "reflect"):
            raise ValueError(
                f"Conv1d(kernel_size={kernel_size}, boundary={self.boundary!r}): an input of {x.shape[2]} samples is "
                "too short to go on so"
            )
        with autocast_off(x.device.type):
            return _Convolve.apply(x.to(self.weight.dtype), self.weight, self.bias, self.boundary)


class MaxPool1d(nn.Module):
    """The largest of neighbouring samples, with stride 1, so that the length stays.

    Of equal largest samples the first has the whole gradient, as torch has it too.

    Args:
        kernel_size: samples that an output looks at, >= 1; of an even number one more lies after it than before.

    Raises:
        ValueError: `kernel_size` is below 1, or the input has another shape or is not real floating point.

    Shape:
        float `(N, C, L)` to the same.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        check_counts("MaxPool1d", kernel_size=kernel_size)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        _check_signals("MaxPool1d", x)
        return _MaxPool.apply(x, self.kernel_size)


class SGD(Optimizer):
    """v <- momentum v + g + weight_decay p, then p <- p - lr v.

    Args:
        params: the parameters p; g is the gradient of each.
        lr: size of a step, >= 0.
        momentum: share of the last step's v, in [0, 1).
        weight_decay: of the parameters, >= 0.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.05, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        check_positive("SGD", lr=lr, weight_decay=weight_decay, or_zero=True)
        check_between("SGD(momentum=...)", momentum, 0, 1, "[)")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient.

        Args:
            closure: computes the loss and its gradients anew; None where they are there.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                velocity = self.state[p].get("velocity", torch.zeros_like(p))
                velocity = group["momentum"] * velocity + p.grad + group["weight_decay"] * p
                self.state[p]["velocity"] = velocity
                p -= group["lr"] * velocity
        return loss


class HandmadeNet(nn.Module):
    """Two convolutions and poolings by hand, with torch's `ReLU` and a linear layer of torch's.

    Args:
        num_classes: classes, >= 2.
        length: samples of the signal.
        width: channels of the first convolution; the second has twice as many.
        kernel_size: of both convolutions.
        boundary: of both convolutions.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, 1, length)` to logits `(N, num_classes)`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        length: int = 64,
        width: int = 8,
        kernel_size: int = 9,
        boundary: Boundary = "zeros",
    ) -> None:
        super().__init__()
        check_counts("HandmadeNet", num_classes=num_classes, least=2)
        check_counts("HandmadeNet", length=length, width=width)
        self.features = nn.Sequential(
            Conv1d(1, width, kernel_size, boundary=boundary),
            nn.ReLU(),
            MaxPool1d(3),
            Conv1d(width, 2 * width, kernel_size, boundary=boundary),
            nn.ReLU(),
            MaxPool1d(3),
        )
        self.classifier = nn.Linear(2 * width * length, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
