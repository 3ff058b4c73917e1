"""How much a small change of a recurrent net's state is felt later: operator norms by power iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from touchstone.nets.recurrent import Recurrent


def lag_norms(net: Recurrent, x: Tensor, lags: Sequence[int], num_iterations: int) -> dict[int, Tensor]:
    """The operator norm of the derivative of the last state by the one k steps before it.

    The state is all that the net carries from step to step: of an LSTM, h and c; of several layers, all of them.
    A power iteration on `J^T J` approaches the norm from below. `J^T u` is a vector-Jacobian product, and `J v` one of
    the map `u -> J^T u`, so that no Jacobian is ever formed.

    Args:
        net: in evaluation mode, gradients on.
        x: inputs, `(B, T, D)`.
        lags: the k, each in [1, T].
        num_iterations: of the power iteration.

    Returns:
        By lag, one norm per sequence, `(B,)`.
    """
    found = {}
    for lag in lags:
        first = None
        if lag < x.shape[1]:
            with torch.no_grad():
                _, first = net(x[:, :-lag])
        start = _flat(first, x.shape[0], net).detach().requires_grad_()
        _, last = net(x[:, -lag:], _unflat(start, net))
        end = _flat(last, x.shape[0], net)
        u = torch.zeros_like(end, requires_grad=True)
        (transposed,) = torch.autograd.grad(end, start, u, create_graph=True)
        generator = torch.Generator(x.device).manual_seed(0)
        v = torch.randn(start.shape, generator=generator, device=x.device, dtype=start.dtype)
        for _ in range(num_iterations):
            v = v / v.norm(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
            (forwards,) = torch.autograd.grad(transposed, u, v, retain_graph=True)
            (v,) = torch.autograd.grad(end, start, forwards, retain_graph=True)
        found[lag] = forwards.norm(dim=1).detach()
    return found


def _flat(state: Tensor | tuple[Tensor, ...] | None, num_sequences: int, net: Recurrent) -> Tensor:
    """A state as one vector per sequence."""
    if state is None:
        weight = next(net.parameters())
        return weight.new_zeros(num_sequences, len(net.state_names) * net.num_layers * net.hidden_size)
    parts = (state,) if isinstance(state, Tensor) else state
    return torch.stack(parts).permute(2, 0, 1, 3).flatten(1)


def _unflat(flat: Tensor, net: Recurrent) -> Tensor | tuple[Tensor, ...]:
    parts = flat.view(len(flat), len(net.state_names), net.num_layers, net.hidden_size).permute(1, 2, 0, 3).unbind(0)
    return parts[0] if len(parts) == 1 else parts
