"""Norms of the Jacobians of recurrent nets, against whole Jacobians and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.callbacks.parts.measures.lag_norms import lag_norms
from touchstone.callbacks.parts.measures.recurrent_matrices import vanishing_bound
from touchstone.nets import GRU, LSTM, RNN

from .last_output import LastOutput


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_norm_is_the_largest_singular_value_of_the_whole_jacobian(cell: Any, num_layers: int) -> None:
    torch.manual_seed(0)
    net, x = cell(3, 4, num_layers).double(), torch.randn(2, 9, 3).double()
    found = lag_norms(net, x, [1, 4, 9], 80)
    for lag, norms in found.items():
        for row in range(2):
            state = net(x[row : row + 1, :-lag])[1] if lag < 9 else None
            zeros = torch.zeros(num_layers, 1, 4, dtype=torch.float64)
            state = state if state is not None else (zeros, zeros) if cell is LSTM else zeros

            def run(state: Any, row: int = row, lag: int = lag) -> Any:
                return net(x[row : row + 1, -lag:], state)[1]

            jacobian: Any
            if cell is LSTM:
                blocks = torch.autograd.functional.jacobian(lambda h, c: run((h, c)), state)
                size = 4 * num_layers
                jacobian = torch.cat([torch.cat([b.reshape(size, size) for b in line], 1) for line in blocks])
            else:
                jacobian = torch.autograd.functional.jacobian(run, state).reshape(4 * num_layers, -1)
            expected = torch.linalg.matrix_norm(jacobian, 2)
            assert norms[row].item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
@pytest.mark.parametrize("lag", [50, 100])
def test_powers_far_beyond_the_range_of_a_squared_float_are_right(scale: float, lag: int) -> None:
    net, x = LastOutput(scale).recurrent, torch.rand(3, 100, 1)
    found = lag_norms(net, x, [lag], 20)[lag]
    assert found.tolist() == pytest.approx([scale**lag] * 3, rel=1e-9)
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("cell", "gain"), [(LSTM, 1.0), (GRU, 1.0), (RNN, 3.0)])
def test_norms_of_a_float32_net_are_those_of_torchs_in_float64(cell: Any, gain: float) -> None:
    """A fresh net forgets within a hundred steps by 17 orders of magnitude; a chaotic one multiplies by as many."""
    torch.manual_seed(0)
    net, x = cell(3, 24), torch.randn(1, 100, 3)
    if gain > 1:
        nn.init.normal_(net.weight_hh_l0, std=gain * 24**-0.5)
    oracle = getattr(nn, cell.__name__)(3, 24, batch_first=True).double()
    oracle.load_state_dict(net.state_dict())

    def run(flat: Tensor) -> Tensor:
        state = flat.view(-1, 1, 1, 24).unbind(0)
        after = oracle(x.double(), state if cell is LSTM else state[0])[1]
        return torch.cat([part.flatten() for part in after]) if cell is LSTM else after.flatten()

    zeros = torch.zeros(48 if cell is LSTM else 24, dtype=torch.float64)
    expected = torch.linalg.matrix_norm(torch.autograd.functional.jacobian(run, zeros), 2)
    assert expected < 1e-12 if gain == 1 else expected > 1e6
    found = lag_norms(net, x, [100], 20)[100]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5 if gain == 1 else 1e-2)


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
def test_a_sequence_is_measured_at_its_own_end_whatever_stands_behind_and_beside_it(cell: Any) -> None:
    torch.manual_seed(0)
    net, x, lengths = cell(3, 4, 2), torch.randn(4, 9, 3), [3, 9, 5, 1]
    state = [torch.randn(2, 4, 4) for _ in net.state_names]
    given = tuple(state) if cell is LSTM else state[0]
    found = lag_norms(net, x, [1, 3, 4, 9], 80, state=given, lengths=torch.tensor(lengths))
    for lag, norms in found.items():
        alone = []
        for row, length in enumerate(lengths):
            if length >= lag:
                mine = [part[:, row : row + 1] for part in state]
                short = x[row : row + 1, :length]
                alone += lag_norms(net, short, [lag], 80, state=tuple(mine) if cell is LSTM else mine[0])[lag].tolist()
        assert norms.tolist() == pytest.approx(alone, rel=1e-4)  # begun elsewhere
    assert [len(norms) for norms in found.values()] == [4, 3, 2, 1]
    assert lag_norms(net, x, [10], 80) == {}


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_below_the_bound_norms_vanish(nonlinearity: Any, num_layers: int, seed: int) -> None:
    torch.manual_seed(seed)
    net, delta = RNN(2, 8, num_layers, nonlinearity=nonlinearity), 0.9
    for layer in range(num_layers):
        weight = getattr(net, f"weight_hh_l{layer}")
        weight.data *= delta * vanishing_bound(net) / torch.linalg.svdvals(weight.data)[0]
    found = lag_norms(net, torch.randn(4, 200, 2), [1, 5, 20, 100, 200], 20)
    for lag, norms in found.items():
        polynomial = 1 if num_layers == 1 else 50 * lag ** (num_layers - 1)
        assert bool((norms <= polynomial * delta**lag * (1 + 1e-6)).all())
