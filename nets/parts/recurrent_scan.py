"""A layer of recurrent cells over a whole sequence, its backward by hand: `recurrent_steps` made fast.

What makes it fast: the inputs of all steps are projected in one product, and so are the gradients of all weights;
buffers are allocated once; and gates are planes of their own, `(K, T, B, H)`, so that every pointwise operation runs
over contiguous memory. A step of the backward is short because what it multiplies the arriving gradient with, the
slope of each gate, is computed for all steps before the loop.

A second derivative (`create_graph=True`) goes through `recurrent_steps`, and so must forward-mode derivatives and
`torch.func`: `is_transformed` tells a module. Batched gradients (`is_grads_batched`,
`functional.jacobian(vectorize=True)`) are not supported, since they are seen in the backward alone: a module takes
`hand_written=False` for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import FunctionCtx

from .recurrent_steps import gru_step, lstm_step, rnn_step, unroll
from .without_autocast import without_autocast

sigmoid_slope, tanh_slope = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
RHO: dict[str, Callable[..., Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def is_transformed() -> bool:
    """Whether forward-mode derivatives or a transform of `torch.func` are at work, for which a scan has no rule."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def rnn_scan(x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor, *, nonlinearity: str) -> Tensor:
    """`h_1, ..., h_T` of an Elman RNN, `(T, B, H)`, from x `(T, B, D)` and h_0 `(B, H)`."""
    return _RNNScan.apply(x, h0, w_ih, w_hh, b, nonlinearity)


def lstm_scan(
    x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`h_1, ..., h_T` and `c_1, ..., c_T` of an LSTM, `(T, B, H)`, from x `(T, B, D)`, h_0 and c_0 `(B, H)`.

    And, to be looked at, its gates i, f, g and o, `(4, T, B, H)`, without a gradient.
    """
    return _LSTMScan.apply(x, h0, c0, w_ih, w_hh, b)


def gru_scan(x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    """`h_1, ..., h_T` of a GRU, `(T, B, H)`, from x `(T, B, D)` and h_0 `(B, H)`.

    And, to be looked at, its gates r, z and n, `(3, T, B, H)`, without a gradient.
    """
    return _GRUScan.apply(x, h0, w_ih, w_hh, b_ih, b_hh)


class _RNNScan(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor, nonlinearity: str
    ) -> Tensor:
        (projected,) = _project(x, w_ih, b, 1)
        h, rho_, w = _with_first(h0, len(x)), {"tanh": torch.tanh_, "relu": torch.relu_}[nonlinearity], w_hh.t()
        for t in range(len(x)):
            rho_(torch.addmm(projected[t], h[t], w, out=h[t + 1]))
        ctx.nonlinearity = nonlinearity  # type: ignore[attr-defined]
        ctx.save_for_backward(x, h0, w_ih, w_hh, b, h)
        return h[1:]

    @staticmethod
    @without_autocast
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, h = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            step = partial(rnn_step, rho=RHO[ctx.nonlinearity])
            return *_differentiable(lambda x, h0, *w: unroll(step, x, (h0,), *w), inputs, ctx, (dh,)), None
        x, _, w_ih, w_hh, _ = inputs
        slope = tanh_slope(torch.ones_like(h[1:]), h[1:]) if ctx.nonlinearity == "tanh" else (h[1:] > 0).to(h.dtype)
        da, arriving = slope[None], dh[-1]
        for t in reversed(range(len(x))):
            slope[t].mul_(arriving)
            arriving = torch.addmm(dh[t - 1], slope[t], w_hh) if t else slope[t] @ w_hh
        dx, dw_ih, db = _of_projection(da, x, w_ih, needs[0], needs[2], needs[4])
        return dx, arriving, dw_ih, _of_weights(da, h[:-1]) if needs[3] else None, db, None


class _LSTMScan(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        gates = _project(x, w_ih, b, 4)
        h, c, w = _with_first(h0, len(x)), _with_first(c0, len(x)), _planes(w_hh, 4).mT
        tanh_c, summed = torch.empty_like(h[1:]), torch.empty_like(gates[:, 0])
        for t in range(len(x)):
            torch.baddbmm(gates[:, t], h[t].expand(4, -1, -1), w, out=summed)
            i, f, g, o = gates[:, t]
            torch.sigmoid(summed[:2], out=gates[:2, t])
            torch.tanh(summed[2], out=g)
            torch.sigmoid(summed[3], out=o)
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
            torch.mul(torch.tanh(c[t + 1], out=tanh_c[t]), o, out=h[t + 1])
        ctx.save_for_backward(x, h0, c0, w_ih, w_hh, b, gates, h, c, tanh_c)
        return h[1:], c[1:], _looked_at(ctx, gates)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, dh: Tensor | None, dc: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *inputs, gates, h, c, tanh_c = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _differentiable(lambda x, h0, c0, *w: unroll(lstm_step, x, (h0, c0), *w), inputs, ctx, (dh, dc))
        x, _, _, w_ih, w_hh, _ = inputs
        i, f, g, o = gates
        da, to_c = torch.empty_like(gates), tanh_slope(o, tanh_c)
        sigmoid_slope(g, i, grad_input=da[0])
        sigmoid_slope(c[:-1], f, grad_input=da[1])
        tanh_slope(i, g, grad_input=da[2])
        sigmoid_slope(tanh_c, o, grad_input=da[3])
        w = _planes(w_hh, 4)
        into_h, into_c = torch.zeros_like(h[0]), torch.zeros_like(h[0])
        for t in reversed(range(len(x))):
            if dh is not None:
                into_h += dh[t]
            if dc is not None:
                into_c += dc[t]
            into_c.addcmul_(into_h, to_c[t])
            da[:3, t].mul_(into_c)
            da[3, t].mul_(into_h)
            into_c.mul_(f[t])
            torch.addbmm(into_h, da[:, t], w, beta=0, out=into_h)
        dx, dw_ih, db = _of_projection(da, x, w_ih, needs[0], needs[3], needs[5])
        return dx, into_h, into_c, dw_ih, _of_weights(da, h[:-1]) if needs[4] else None, db


class _GRUScan(Function):
    """Its planes are what r acts on (`W_hn h + b_hn`), r, z and n: the first three read h, the last three x."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> tuple[Tensor, Tensor]:
        h, w = _with_first(h0, len(x)), _planes(w_hh, 3).roll(1, 0).mT
        planes = x.new_empty(4, *h[1:].shape)
        b_hn = b_hh.view(3, -1)[2]
        b = b_ih + torch.cat([b_hh.view(3, -1)[:2].flatten(), torch.zeros_like(b_hn)])
        _project(x, w_ih, b, 3, out=planes[1:])
        planes[0] = b_hn
        summed = torch.empty_like(planes[:3, 0])
        for t in range(len(x)):
            torch.baddbmm(planes[:3, t], h[t].expand(3, -1, -1), w, out=summed)
            of_h, r, z, n = planes[:, t]
            of_h.copy_(summed[0])
            torch.sigmoid(summed[1:], out=planes[1:3, t])
            n.addcmul_(r, of_h).tanh_()
            torch.lerp(n, h[t], z, out=h[t + 1])
        ctx.save_for_backward(x, h0, w_ih, w_hh, b_ih, b_hh, planes, h)
        return h[1:], _looked_at(ctx, planes[1:])

    @staticmethod
    @without_autocast
    def backward(ctx: Any, dh: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *inputs, planes, h = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dh = torch.zeros_like(h[1:]) if dh is None else dh
        if torch.is_grad_enabled():
            return _differentiable(lambda x, h0, *w: unroll(gru_step, x, (h0,), *w), inputs, ctx, (dh,))
        x, _, w_ih, w_hh, _, _ = inputs
        of_h, r, z, n = planes
        da = torch.empty_like(planes)
        tanh_slope(1 - z, n, grad_input=da[3])
        torch.mul(da[3], r, out=da[0])
        sigmoid_slope(da[3] * of_h, r, grad_input=da[1])
        sigmoid_slope(h[:-1] - n, z, grad_input=da[2])
        w = _planes(w_hh, 3).roll(1, 0)
        arriving = dh[-1]
        for t in reversed(range(len(x))):
            da[:, t].mul_(arriving)
            arriving = torch.addbmm(arriving * z[t], da[:3, t], w)
            if t:
                arriving += dh[t - 1]
        dx, dw_ih, db_ih = _of_projection(da[1:], x, w_ih, needs[0], needs[2], needs[4])
        dw_hh = _of_weights(da[:3].roll(-1, 0), h[:-1]) if needs[3] else None
        db_hh = da[:3].sum((1, 2)).roll(-1, 0).flatten() if needs[5] else None
        return dx, arriving, dw_ih, dw_hh, db_ih, db_hh


def _looked_at(ctx: FunctionCtx, gates: Tensor) -> Tensor:
    """Gates as an output without a gradient, for which the backward gets None and no zeros."""
    gates = gates.detach()
    ctx.mark_non_differentiable(gates)
    ctx.set_materialize_grads(False)
    return gates


def _planes(weight: Tensor, num_gates: int) -> Tensor:
    """`(K H, D)` as `(K, H, D)`."""
    return weight.view(num_gates, -1, weight.shape[1])


def _with_first(first: Tensor, num_steps: int) -> Tensor:
    """Room for `num_steps` states behind the first, `(1 + T, B, H)`."""
    states = first.new_empty(1 + num_steps, *first.shape)
    states[0] = first
    return states


def _project(x: Tensor, w_ih: Tensor, b: Tensor, num_gates: int, out: Tensor | None = None) -> Tensor:
    """`W_ih x_t + b` of all steps and gates in one product: `(K, T, B, H)`."""
    w, num_rows = _planes(w_ih, num_gates), x.shape[0] * x.shape[1]
    out = x.new_empty(num_gates, *x.shape[:2], w.shape[1]) if out is None else out
    rows = x.reshape(1, num_rows, x.shape[2]).expand(num_gates, -1, -1)
    torch.baddbmm(b.view(num_gates, 1, -1), rows, w.mT, out=out.view(num_gates, num_rows, w.shape[1]))
    return out


def _of_projection(
    da: Tensor, x: Tensor, w_ih: Tensor, needs_x: bool, needs_w: bool, needs_b: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, W_ih and b from those of `W_ih x_t + b`, `(K, T, B, H)`."""
    dx = torch.addbmm(x.new_zeros(()), da.flatten(1, 2), _planes(w_ih, len(da))).view_as(x) if needs_x else None
    return dx, _of_weights(da, x) if needs_w else None, da.sum((1, 2)).flatten() if needs_b else None


def _of_weights(da: Tensor, read: Tensor) -> Tensor:
    """The gradient of the weights, `(K H, D)`, that read `(T, B, D)`: one product over all steps."""
    rows = read.flatten(0, 1).expand(len(da), -1, -1)
    return torch.bmm(da.flatten(1, 2).mT, rows).flatten(0, 1)


def _differentiable(
    scan: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    ctx: Any,
    arrived: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients of a scan by plain steps, with a graph of their own."""
    # As views, since one input may depend on another, whose gradient is not to be counted here.
    inputs = [value.view_as(value) for value in inputs]
    wanted = [value for value, needs in zip(inputs, ctx.needs_input_grad, strict=False) if needs]
    pairs = [(out, grad) for out, grad in zip(scan(*inputs), arrived, strict=True) if grad is not None]
    outputs, grads = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, allow_unused=True))
    return tuple(next(found) if needs else None for needs in ctx.needs_input_grad[: len(inputs)])
