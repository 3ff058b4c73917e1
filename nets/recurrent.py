"""`RNN`, `LSTM`, `GRU`: recurrent nets from scratch, in place of torch's.

They compute what `torch.nn.RNN`, `LSTM` and `GRU` do and name their parameters the same, so that a state dict goes
from one to the other. The equations stand in `parts/recurrent_steps.py`; `parts/recurrent_scan.py` computes a layer
fast, with a backward written by hand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from touchstone.options import check_between, check_choice, check_counts, check_flags

from .parts.made import check_made
from .parts.recurrent_scan import RHO, gru_scan, is_transformed, lstm_scan, rnn_scan
from .parts.recurrent_steps import State, gru_step, lstm_step, rnn_step, unroll
from .parts.without_autocast import autocast_off

AnyState = TypeVar("AnyState", Tensor, tuple[Tensor, ...])


def detach_state(state: AnyState) -> AnyState:
    """The same state without its past: given to the next batch, it truncates back-propagation through time there."""
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


Listener = Callable[[int, State, Tensor], None]
"""`listener(layer, states, gates)`: the states after every step, each part `(T, B, H)`, and the gates, without a
gradient: of an LSTM i, f, g and o, of a GRU r, z and n, of an RNN its output alone, `(K, T, B, H)`."""


class Recurrent(nn.Module):
    """The base of the three: layers, dropout, initial states and lengths. Computes in the dtype of its weights.

    Args:
        input_size: features D of the input, >= 1.
        hidden_size: units H of every layer, >= 1.
        num_layers: layers L, each reading the outputs of the one below, >= 1.
        dropout: share of the outputs of every layer but the last that training sets to zero, in [0, 1).
        bias: whether there are `bias_ih_l*` and `bias_hh_l*`.
        hand_written: whether to use the fast layers, which leave forward-mode derivatives and `torch.func` to the
            plain steps; False for the plain steps throughout, which give batched gradients and
            `torch.export.export(strict=True)` can follow.
        batch_first, bidirectional, proj_size: torch's options, of which there is one choice: True, False and 0.
        device: where the parameters are made, as for torch's layers; None for torch's default.
        dtype: of the parameters, floating point; None for torch's default.

    Attributes:
        listener: called with what every layer of a forward gives, if it is not None.

    Raises:
        ValueError: a value is outside its range.
    """

    num_gates: int
    state_names: tuple[str, ...] = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        hand_written: bool = True,
        batch_first: bool = True,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not batch_first:
            raise ValueError(f"{name}(batch_first=...) must be True: inputs are (batch, steps, features), got False")
        if bidirectional:
            raise ValueError(f"{name}(bidirectional=...) must be False: the net runs forwards alone, got True")
        if proj_size:
            raise ValueError(f"{name}(proj_size=...) must be 0: outputs are not projected, got {proj_size}")
        check_counts(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_between(f"{name}(dropout=...)", dropout, 0, 1, "[)")
        check_flags(name, bias=bias, hand_written=hand_written, batch_first=batch_first)
        check_made(self, device=device, dtype=dtype)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.dropout, self.bias, self.hand_written = dropout, bias, hand_written
        self.listener: Listener | None = None
        num_rows, empty = self.num_gates * hidden_size, partial(torch.empty, device=device, dtype=dtype)
        for layer in range(num_layers):
            width = hidden_size if layer else input_size
            self.register_parameter(f"weight_ih_l{layer}", nn.Parameter(empty(num_rows, width)))
            self.register_parameter(f"weight_hh_l{layer}", nn.Parameter(empty(num_rows, hidden_size)))
            for part in ("ih", "hh") if bias else ():
                self.register_parameter(f"bias_{part}_l{layer}", nn.Parameter(empty(num_rows)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every parameter uniformly from +-1 / sqrt(H), as torch does."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, dropout={self.dropout}"

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Tensor | tuple[Tensor, ...] | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, Any]:
        """Runs over sequences.

        Args:
            x: inputs, `(B, T, D)`, T >= 1, or packed; B may be 0.
            state: the state before the first step, `(L, B, H)`, for an LSTM a pair (h, c) of them; None for zeros.
            lengths: how many steps of each sequence count, integers `(B,)` in [1, T]; None for all. What stands
                behind them has no influence, and outputs there are 0.

        Returns:
            The outputs of the last layer, `(B, T, H)`, packed if the input is; and the state after the last step that
            counts, in the form of `state`.

        Raises:
            ValueError: a shape or a length is wrong.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ValueError(f"{type(self).__name__}: a packed sequence has its lengths; give it without `lengths`")
            return self._run_packed(x, state)
        self._check_input(x)
        ends = None if lengths is None else self._ends(lengths, x)
        dtype = self.weights_of(0)[1].dtype
        with autocast_off(x.device.type):
            inputs = x.to(dtype).transpose(0, 1)
            before = self._parts(state, inputs)
            if ends is not None:
                counts = (torch.arange(len(inputs), device=x.device)[:, None] <= ends)[..., None]
                inputs = inputs.where(counts, 0)
            after = []
            for layer in range(self.num_layers):
                if layer:
                    inputs = F.dropout(inputs, self.dropout, self.training)
                inputs, states, gates = self._layer(inputs, tuple(part[layer] for part in before), layer)
                after.append(states)
                if self.listener is not None:
                    assert gates is not None
                    self.listener(layer, states, gates)
            output = after[-1][0] if ends is None else after[-1][0].where(counts, 0)
            at = (-1,) if ends is None else (ends, torch.arange(len(ends), device=x.device))
            last = tuple(torch.stack([states[part][at] for states in after]) for part in range(len(before)))
        return output.transpose(0, 1), last[0] if len(last) == 1 else last

    def _run_packed(self, x: PackedSequence, state: Any) -> tuple[PackedSequence, Any]:
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        output, state = self(padded, state, lengths=lengths)
        if x.sorted_indices is not None:  # in the order of the packed sequence, which ties leave open
            output, lengths = output[x.sorted_indices], lengths[x.sorted_indices.cpu()]
        data = pack_padded_sequence(output, lengths, batch_first=True).data
        return PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), state

    @abstractmethod
    def _scan(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[State, Tensor]:
        """The states after every step, each part `(T, B, H)`, by the fast layers, and the gates for a listener."""

    @abstractmethod
    def _unroll(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        """The states after every step, by plain ones."""

    def _run(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[State, Tensor | None]:
        """The states after every step, and the gates, which plain steps leave out where nobody listens."""
        # By its operations, where a scan writes into buffers. Of what dynamo compiles, a scan stays a scan.
        is_exported = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
        is_recorded = x.is_meta or torch.jit.is_tracing() or is_exported
        if self.hand_written and not is_recorded and not is_transformed():
            return self._scan(x, state, weights)
        states = self._unroll(x, state, weights)
        if self.listener is None:
            return states, None
        with torch.no_grad():
            return states, self._scan(x, state, weights)[1]

    def _layer(self, x: Tensor, state: State, layer: int) -> tuple[Tensor, State, Tensor | None]:
        """What a layer hands to the one above, its states and its gates."""
        states, gates = self._run(x, state, self.weights_of(layer))
        return states[0], states, gates

    def weights_of(self, layer: int) -> list[Tensor]:
        """W_ih, W_hh, b_ih and b_hh of a layer; without biases, zeros for them."""
        w_ih, w_hh = getattr(self, f"weight_ih_l{layer}"), getattr(self, f"weight_hh_l{layer}")
        if not self.bias:
            return [w_ih, w_hh, *w_ih.new_zeros(2, len(w_ih))]
        return [w_ih, w_hh, getattr(self, f"bias_ih_l{layer}"), getattr(self, f"bias_hh_l{layer}")]

    # What was given.

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{type(self).__name__}: the input must be a tensor (batch, steps, {self.input_size}) or a "
                f"PackedSequence, got {type(x).__name__}"
            )
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: the input must be (batch, steps, {self.input_size}), at least one step, "
                f"got {tuple(x.shape)}"
            )

    def _ends(self, lengths: Tensor | Sequence[int], x: Tensor) -> Tensor:
        """The last step of each sequence."""
        try:
            given = torch.as_tensor(lengths, device=x.device)
        except (TypeError, ValueError, RuntimeError):
            given = None
        if (
            given is None
            or (given.is_floating_point() and len(x) > 0)  # an empty list has no type of its own
            or given.dtype == torch.bool
            or given.shape != (len(x),)
            or bool(((given < 1) | (given > x.shape[1])).any())
        ):
            raise ValueError(
                f"{type(self).__name__}: lengths must be {len(x)} whole numbers from 1 to {x.shape[1]}, "
                f"got {lengths.tolist() if isinstance(lengths, Tensor) else lengths!r}"
            )
        return given.long() - 1

    def _parts(self, state: Tensor | tuple[Tensor, ...] | None, x: Tensor) -> State:
        """The initial state as a tuple."""
        shape = (self.num_layers, x.shape[1], self.hidden_size)
        if state is None:
            return (x.new_zeros(shape),) * len(self.state_names)
        parts = tuple(state) if isinstance(state, (tuple, list)) else (state,)
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if shapes != [shape] * len(self.state_names):
            form = " and ".join(f"{name} {shape}" for name in self.state_names)
            got = ", ".join(map(str, shapes))
            raise ValueError(f"{type(self).__name__}: the state must be {form} (layers, batch, units), got {got}")
        return tuple(part.to(x.dtype) for part in parts)


class RNN(Recurrent):
    """An Elman RNN: `g_t = rho(W_hh g_(t-1) + W_ih x_t + b)`; its state is one tensor.

    Args: those of `Recurrent`, and

        nonlinearity: rho, `"tanh"` or `"relu"`.
        pre_activation: whether outputs and state are `h_t = W_hh rho(h_(t-1)) + W_ih x_t + b`, the second form of the
            same recurrence: `g_t = rho(h_t)`. Layers read `rho(h_t)` of the one below.
    """

    num_gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        pre_activation: bool = False,
        **options: Any,
    ) -> None:
        check_choice("RNN(nonlinearity=...)", nonlinearity, tuple(RHO))
        check_flags("RNN", pre_activation=pre_activation)
        super().__init__(input_size, hidden_size, num_layers, **options)
        self.nonlinearity, self.pre_activation = nonlinearity, pre_activation

    def _scan(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[State, Tensor]:
        w_ih, w_hh, b_ih, b_hh = weights
        h = rnn_scan(x, state[0], w_ih, w_hh, b_ih + b_hh, nonlinearity=self.nonlinearity)
        return (h,), h.detach()[None]

    def _unroll(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        w_ih, w_hh, b_ih, b_hh = weights
        return unroll(partial(rnn_step, rho=RHO[self.nonlinearity]), x, state, w_ih, w_hh, b_ih + b_hh)

    def _layer(self, x: Tensor, state: State, layer: int) -> tuple[Tensor, State, Tensor | None]:
        if not self.pre_activation:
            return super()._layer(x, state, layer)
        w_ih, w_hh, b_ih, b_hh = weights = self.weights_of(layer)
        first = RHO[self.nonlinearity](state[0])
        (g,), gates = self._run(x, (first,), weights)
        h = F.linear(torch.cat([first[None], g[:-1]]), w_hh, b_hh) + F.linear(x, w_ih, b_ih)
        return g, (h,), gates


class LSTM(Recurrent):
    """Long short-term memory; its state is a pair (h, c). Options: see `Recurrent`."""

    num_gates = 4
    state_names = ("h", "c")

    def _scan(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[State, Tensor]:
        w_ih, w_hh, b_ih, b_hh = weights
        h, c, gates = lstm_scan(x, state[0], state[1], w_ih, w_hh, b_ih + b_hh)
        return (h, c), gates

    def _unroll(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        w_ih, w_hh, b_ih, b_hh = weights
        return unroll(lstm_step, x, state, w_ih, w_hh, b_ih + b_hh)


class GRU(Recurrent):
    """A gated recurrent unit; its state is one tensor. Options: see `Recurrent`."""

    num_gates = 3

    def _scan(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[State, Tensor]:
        h, gates = gru_scan(x, state[0], *weights)
        return (h,), gates

    def _unroll(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        return unroll(gru_step, x, state, *weights)
