"""What each recurrent net can learn of things that lie far back, and that `RecurrentJacobian` says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.callbacks import RecurrentJacobian
from touchstone.callbacks.parts.measures.lag_norms import lag_norms
from touchstone.nets import GRU, LSTM, RNN

T, H = 100, 32


def adding(num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hochreiter and Schmidhuber, 1997, task 4: the sum of the two numbers that are marked, one in each half."""
    values, marks = torch.rand(num_samples, T, generator=generator), torch.zeros(num_samples, T)
    for first in (0, T // 2):
        marks[torch.arange(num_samples), torch.randint(first, first + T // 2, (num_samples,), generator=generator)] = 1
    return torch.stack([values, marks], -1), (values * marks).sum(1)


def remembering(net: LSTM) -> None:
    """Forget gates for time spans up to T: Tallec and Ollivier, "Can recurrent neural networks warp time?", 2018."""
    spans = torch.empty(H).uniform_(1, T - 1)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        nn.init.zeros_(getattr(net, name))
    net.bias_ih_l0.data[:H], net.bias_ih_l0.data[H : 2 * H] = -spans.log(), spans.log()


def learnt(net: Any, num_steps: int) -> float:
    """The mean squared error of a net on the adding task after some steps of training; a constant leaves 1/6."""
    generator = torch.Generator().manual_seed(0)
    read_out = nn.Linear(H, 1)
    parameters = [*net.parameters(), *read_out.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, num_steps)
    for _ in range(num_steps):
        x, y = adding(32, generator)
        loss = F.mse_loss(read_out(net(x)[0][:, -1])[:, 0], y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    x, y = adding(1000, generator)
    with torch.no_grad():
        return float(F.mse_loss(read_out(net(x)[0][:, -1])[:, 0], y))


def whole_norms(net: Any, x: Tensor, lag: int) -> list[float]:
    """The norms of whole Jacobians of torch's own nets in float64, one per sequence."""
    oracle = getattr(nn, type(net).__name__)(2, H, batch_first=True).double()
    oracle.load_state_dict(net.state_dict())
    is_lstm, norms = isinstance(net, LSTM), []
    for sequence in x.double():

        def run(flat: Tensor, sequence: Tensor = sequence) -> Tensor:
            state = flat.view(-1, 1, H).unbind(0)
            after = oracle(sequence[None, -lag:], [part[None] for part in state] if is_lstm else state[0][None])[1]
            return torch.cat([part.flatten() for part in after]) if is_lstm else after.flatten()

        state = oracle(sequence[None, :-lag])[1]
        flat = torch.cat([part.flatten() for part in state]) if is_lstm else state.flatten()
        jacobian = torch.autograd.functional.jacobian(run, flat.detach())
        norms.append(float(torch.linalg.matrix_norm(jacobian, 2)))
    return norms


@pytest.mark.slow
def test_an_lstm_adds_over_100_steps_where_an_rnn_does_not_and_the_jacobian_says_why() -> None:
    torch.manual_seed(0)
    lstm, rnn = LSTM(2, H), RNN(2, H)
    remembering(lstm)
    assert learnt(lstm, 1500) < 0.01
    assert learnt(rnn, 1500) > 0.1
    x, _ = adding(8, torch.Generator().manual_seed(1))
    norms = {}
    for name, net in (("lstm", lstm), ("rnn", rnn)):
        found = lag_norms(net, x, [50], 20)[50]
        assert found.tolist() == pytest.approx(whole_norms(net, x, 50), rel=1e-3)
        norms[name] = float(found.log().mean().exp())
    assert RecurrentJacobian().verdict({50: norms["rnn"]}).startswith("vanishing")
    assert RecurrentJacobian().verdict({50: norms["lstm"]}).startswith("stable")
    assert norms["rnn"] < 1e-3 * norms["lstm"]


def copying(num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four of eight symbols, a pause of ten steps, and a mark from which on they are to be said again."""
    symbols = torch.randint(8, (num_samples, 4), generator=generator)
    x = torch.zeros(num_samples, 18, 9)
    x[:, :4] = F.one_hot(symbols, 9).float()
    x[:, 14, 8] = 1
    return x, symbols


@pytest.mark.slow
@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_a_gated_net_says_again_what_it_has_read(cell: Any) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net, read_out = cell(9, 64), nn.Linear(64, 8)
    parameters = [*net.parameters(), *read_out.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 2000)
    for _ in range(2000):
        x, symbols = copying(64, generator)
        loss = F.cross_entropy(read_out(net(x)[0][:, -4:]).mT, symbols)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    x, symbols = copying(1000, generator)
    with torch.no_grad():
        said = read_out(net(x)[0][:, -4:]).argmax(-1)
    assert (said == symbols).float().mean() > 0.98
