"""`Gates`: what the tanh, sigmoid and relu units inside a recurrent net give, step by step.

The layers keep only their states; from these, all gates of a layer come out of two products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recurrent import GRU, LSTM, RNN, Recurrent
from .recurrent_steps import State

Kind = Literal["tanh", "sigmoid", "relu"]
Keep = Callable[[str, Kind, Tensor], None]


class Gates:
    """Hands the units of every layer to `keep` whenever the net runs, until `remove`.

    That is a name, `l0` for the first layer of an RNN, `l0.f` for the forget gate of an LSTM's; the kind of unit; and
    what it gave, `(B, T, H)`. `l0.c` is the tanh of an LSTM's cell.

    Args:
        net: an `RNN`, `LSTM` or `GRU`.
        keep: takes them.
    """

    def __init__(self, net: Recurrent, keep: Keep) -> None:
        self._net, self._keep = net, keep
        net.listener = self._listen

    def remove(self) -> None:
        """Listens no more."""
        self._net.listener = None

    @torch.no_grad()
    def _listen(self, layer: int, read: Tensor, first: State, output: Tensor, states: State) -> None:
        net = self._net
        if isinstance(net, RNN):
            self._keep(f"l{layer}", net.nonlinearity, output.transpose(0, 1))
            return
        w_ih, w_hh, b_ih, b_hh = net.weights_of(layer)
        before = torch.cat([first[0][None], states[0][:-1]])
        of_x, of_h = F.linear(read, w_ih, b_ih), F.linear(before, w_hh, b_hh)
        units: dict[str, tuple[Kind, Tensor]]
        if isinstance(net, LSTM):
            i, f, g, o = (of_x + of_h).chunk(4, -1)
            units = {"i": ("sigmoid", i.sigmoid()), "f": ("sigmoid", f.sigmoid()), "g": ("tanh", g.tanh())}
            units |= {"o": ("sigmoid", o.sigmoid()), "c": ("tanh", states[1].tanh())}
        else:
            assert isinstance(net, GRU)
            r, z = (of_x + of_h).chunk(3, -1)[:2]
            n = of_x.chunk(3, -1)[2] + r.sigmoid() * of_h.chunk(3, -1)[2]
            units = {"r": ("sigmoid", r.sigmoid()), "z": ("sigmoid", z.sigmoid()), "n": ("tanh", n.tanh())}
        for name, (kind, values) in units.items():
            self._keep(f"l{layer}.{name}", kind, values.transpose(0, 1))
