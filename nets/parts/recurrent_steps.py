"""One step of each recurrent cell as its equations say, and a loop over them: the oracle of `recurrent_scan`.

Elman, "Finding structure in time", 1990; Hochreiter and Schmidhuber, "Long short-term memory", 1997, with the forget
gate of Gers et al., 2000; Cho et al., 2014, in the variant of torch and cuDNN, where the reset gate acts after the
product. Shapes: x_t `(B, D)`, states `(B, H)`; the K gates of a cell stand one below the other in the weights
`(K H, D)`, `(K H, H)` and biases `(K H,)`, in torch's order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
"""`(h,)`, for an LSTM `(h, c)`."""
Step = Callable[..., State]


def rnn_step(
    x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b: Tensor, *, rho: Callable = torch.tanh
) -> tuple[Tensor]:
    """`h_t = rho(W_ih x_t + W_hh h_{t-1} + b)`."""
    (h,) = state
    return (rho(F.linear(x, w_ih, b) + F.linear(h, w_hh)),)


def lstm_step(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`c_t = f c_{t-1} + i g`, `h_t = o tanh(c_t)`; the gates i, f, g, o are sigmoids, g a tanh."""
    h, c = state
    i, f, g, o = (F.linear(x, w_ih, b) + F.linear(h, w_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor]:
    """`h_t = (1 - z) n + z h_{t-1}`, `n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn))`; r and z are sigmoids."""
    (h,) = state
    of_x, of_h = F.linear(x, w_ih, b_ih).chunk(3, 1), F.linear(h, w_hh, b_hh).chunk(3, 1)
    r, z = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
    n = (of_x[2] + r * of_h[2]).tanh()
    return ((1 - z) * n + z * h,)


def unroll(step: Step, x: Tensor, state: State, *weights: Tensor) -> State:
    """The states after every step, each part `(T, B, H)`, of inputs `(T, B, D)`, T >= 1, by a step as those above."""
    states = []
    for x_t in x:
        state = step(x_t, state, *weights)
        states.append(state)
    return tuple(torch.stack(part) for part in zip(*states, strict=True))
