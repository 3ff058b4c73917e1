"""What the recurrent matrices of a net alone say of its gradients."""

from __future__ import annotations

import torch

from touchstone.nets.recurrent import RNN, Recurrent

LARGEST_SLOPE = {"tanh": 1.0, "relu": 1.0}
"""Gamma: the largest slope of each nonlinearity of an `RNN`."""


def singular_values(net: Recurrent) -> list[float]:
    """The largest singular value of `W_hh` of each layer, the root of `lambda_max(W^T W)`; NaN of what is not finite.

    Of an LSTM or GRU, W_hh is that of all gates, one below the other.
    """
    found = []
    for layer in range(net.num_layers):
        w = net.weights_of(layer)[1].detach().cpu().double()
        is_finite = bool(w.isfinite().all())
        found.append(float(torch.linalg.eigvalsh(w.T @ w)[-1].sqrt()) if is_finite else float("nan"))
    return found


def vanishing_bound(net: Recurrent) -> float | None:
    """The value, 1 / gamma, such that gradients vanish where the singular values of all layers lie below it.

    Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, section 2.1, has it for one layer:
    where `lambda_max(W^T W) <= delta^2 / gamma^2` with delta < 1, the norm over k steps is at most `delta^k`. With
    several layers the Jacobian of a step is block triangular, with such a block for each: over k steps, the norm is at
    most `C k^(L - 1) delta^k`, which may grow at first and vanishes in the end. Gates have no such bound.

    Returns:
        None for a net for which this is no theorem.
    """
    return 1 / LARGEST_SLOPE[net.nonlinearity] if isinstance(net, RNN) else None
