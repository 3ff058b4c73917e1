"""`Gates`: what the tanh, sigmoid and relu units inside a recurrent net give, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ..recurrent import LSTM, RNN, Recurrent
from .recurrent_steps import State

Kind = Literal["tanh", "sigmoid", "relu"]
Keep = Callable[[str, Kind, Tensor], None]


class Gates:
    """Hands the units of every layer to `keep` whenever the net runs, until `remove`.

    That is a name, `l0` for the first layer of an RNN, `l0.f` for the forget gate of an LSTM's; the kind of unit; and
    what it gave, `(B, T, H)`. `l0.c` is the tanh of an LSTM's cell.
    """

    def __init__(self, net: Recurrent, keep: Keep) -> None:
        self._net, self._keep = net, keep
        net.listener = self._listen

    def remove(self) -> None:
        """Listens no more."""
        self._net.listener = None

    def _listen(self, layer: int, states: State, gates: Tensor) -> None:
        if isinstance(self._net, RNN):
            self._keep(f"l{layer}", self._net.nonlinearity, gates[0].transpose(0, 1))
            return
        units = dict(zip("ifgo" if isinstance(self._net, LSTM) else "rzn", gates, strict=True))
        if isinstance(self._net, LSTM):
            units["c"] = states[1].detach().tanh()
        for name, values in units.items():
            self._keep(f"l{layer}.{name}", "tanh" if name in "gnc" else "sigmoid", values.transpose(0, 1))
