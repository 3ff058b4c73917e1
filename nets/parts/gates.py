"""`gates_of`: what the tanh, sigmoid and relu units inside a recurrent net give, step by step.

The layers keep only their states; from these, all gates of a layer come out of two products.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recurrent import GRU, LSTM, RNN, Recurrent

Kind = Literal["tanh", "sigmoid", "relu"]


@torch.no_grad()
def gates_of(net: Recurrent, x: Tensor) -> dict[str, tuple[Kind, Tensor]]:
    """The units of every layer, from a state of zeros.

    Args:
        net: an `RNN`, `LSTM` or `GRU`.
        x: its inputs, `(B, T, D)`.

    Returns:
        By name, `l0` for the first layer of an RNN, `l0.f` for the forget gate of an LSTM's: the kind of unit, and what
        it gave, `(B, T, H)`. `l0.c` is the tanh of an LSTM's cell.
    """
    found: dict[str, tuple[Kind, Tensor]] = {}
    inputs = x.to(net.weights_of(0)[1].dtype).transpose(0, 1)
    zero = inputs.new_zeros(x.shape[0], net.hidden_size)
    for layer in range(net.num_layers):
        w_ih, w_hh, b_ih, b_hh = net.weights_of(layer)
        output, states = net._layer(inputs, (zero,) * len(net.state_names), layer)
        before = torch.cat([zero[None], states[0][:-1]])
        of_x, of_h = F.linear(inputs, w_ih, b_ih), F.linear(before, w_hh, b_hh)
        units: dict[str, tuple[Kind, Tensor]]
        if isinstance(net, LSTM):
            i, f, g, o = (of_x + of_h).chunk(4, -1)
            units = {".i": ("sigmoid", i.sigmoid()), ".f": ("sigmoid", f.sigmoid()), ".g": ("tanh", g.tanh())}
            units |= {".o": ("sigmoid", o.sigmoid()), ".c": ("tanh", states[1].tanh())}
        elif isinstance(net, GRU):
            r, z = (of_x + of_h).chunk(3, -1)[:2]
            n = of_x.chunk(3, -1)[2] + r.sigmoid() * of_h.chunk(3, -1)[2]
            units = {".r": ("sigmoid", r.sigmoid()), ".z": ("sigmoid", z.sigmoid()), ".n": ("tanh", n.tanh())}
        else:
            assert isinstance(net, RNN)
            units = {"": (net.nonlinearity, output)}
        found |= {f"l{layer}{name}": (kind, values.transpose(0, 1)) for name, (kind, values) in units.items()}
        inputs = output
    return found
