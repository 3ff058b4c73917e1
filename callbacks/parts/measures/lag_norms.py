"""How much a small change of a recurrent net's state is felt later: the norms of `dh_T / dh_{T-k}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from touchstone.attacks.core.per_sample import widest
from touchstone.nets.recurrent import Recurrent

from .operator_norm import operator_norms

AnyState = Tensor | tuple[Tensor, ...]
Run = Callable[..., AnyState]


def lag_norms(
    net: Recurrent,
    x: Tensor,
    lags: Sequence[int],
    num_iterations: int,
    *,
    state: AnyState | None = None,
    lengths: Tensor | None = None,
) -> dict[int, Tensor]:
    """The operator norm of the derivative of the last state by the one k steps before it.

    The state is all that the net carries from step to step: of an LSTM, h and c; of several layers, all of them. The
    steps are run once, for all lags and iterations. `J^T u` is a vector-Jacobian product, and `J v` one of the map
    `u -> J^T u`, so that no Jacobian is ever formed. All of it in float64, whatever the net computes in: products over
    a hundred steps leave the range of float32.

    Args:
        net: in evaluation mode, gradients on.
        x: inputs, `(B, T, D)`.
        lags: the k, each >= 1.
        num_iterations: the most of the power iteration; what has converged ends sooner.
        state: the one before the first step, as the net takes it; None for zeros.
        lengths: how many steps of each sequence count, `(B,)`, each in [1, T]; None for all.

    Returns:
        By lag, the norms of those sequences that have so many steps, float64 `(<= B,)`; no lag that none of them has.
    """
    device = x.device if widest(x.device) == torch.float64 else torch.device("cpu")
    run, x = _in_float64(net, device), x.to(device, torch.float64)
    ends = x.new_full((len(x),), x.shape[1]).long() if lengths is None else lengths.to(device)
    measured = sorted((lag for lag in set(lags) if lag <= int(ends.max())), reverse=True)
    if not measured:
        return {}
    starts, end = _steps(net, run, x, state, ends, measured)
    u = torch.zeros_like(end, requires_grad=True)
    found = {}
    for lag, start, transposed in zip(
        measured, starts, torch.autograd.grad(end, starts, u, create_graph=True), strict=True
    ):
        rows = (ends >= lag)[:, None]

        def forwards(v: Tensor, transposed: Tensor = transposed, rows: Tensor = rows) -> Tensor:
            return torch.where(rows, torch.autograd.grad(transposed, u, v, retain_graph=True)[0], 0)

        def back(of_end: Tensor, start: Tensor = start) -> Tensor:
            return torch.autograd.grad(end, start, of_end, retain_graph=True)[0]

        first = torch.randn(end.shape, generator=torch.Generator().manual_seed(0), dtype=end.dtype).to(device)
        found[lag] = operator_norms(forwards, back, first, num_iterations)[rows[:, 0]].detach()
    return {lag: found[lag] for lag in sorted(found)}


def _steps(
    net: Recurrent, run: Run, x: Tensor, state: AnyState | None, ends: Tensor, lags: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """The states by which is differentiated, one for each lag, the longest first, and the last one: `(B, S)` each."""
    as_tensor = torch.tensor(lags, device=x.device)[:, None]
    joins = torch.where(as_tensor <= ends, as_tensor, 0).amax(0)  # the longest lag that a sequence has
    num_before = ends - joins
    first = _flat(state, net, x)
    if int(num_before.max()):
        with torch.no_grad():
            after = run(x[:, : int(num_before.max())], _unflat(first, net), num_before.clamp(min=1))
        first = torch.where(num_before[:, None] > 0, _flat(after, net, x), first)
    first.requires_grad_()
    now, starts = first, []
    for lag, next_lag in zip(lags, (*lags[1:], 0), strict=True):
        # A sequence that is shorter has run over something until here, and only now begins.
        now = torch.where((joins > lag)[:, None], now, first)
        starts.append(now)
        places = (ends[:, None] - lag + torch.arange(lag - next_lag, device=x.device)).clamp(min=0)
        window = x[torch.arange(len(x), device=x.device)[:, None], places]
        now = _flat(run(window, _unflat(now, net)), net, x)
    return starts, now


def _in_float64(net: Recurrent, device: torch.device) -> Run:
    """The state after a run of the net with weights in float64; the net stays what it is."""
    values = {
        name: value.detach().to(device, torch.float64)
        for name, value in chain(net.named_parameters(), net.named_buffers())
    }

    def run(x: Tensor, state: AnyState, lengths: Tensor | None = None) -> Any:
        return functional_call(net, values, (x, state), {"lengths": lengths})[1]

    return run


def _flat(state: AnyState | None, net: Recurrent, x: Tensor) -> Tensor:
    """A state as one vector per sequence, like `x` in type and place."""
    if state is None:
        return x.new_zeros(len(x), len(net.state_names) * net.num_layers * net.hidden_size)
    parts = (state,) if isinstance(state, Tensor) else state
    return torch.stack(parts).permute(2, 0, 1, 3).flatten(1).to(x)


def _unflat(flat: Tensor, net: Recurrent) -> AnyState:
    parts = flat.view(len(flat), len(net.state_names), net.num_layers, net.hidden_size).permute(1, 2, 0, 3).unbind(0)
    return parts[0] if len(parts) == 1 else parts
