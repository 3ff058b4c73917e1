"""`RNN`, `LSTM`, `GRU` against torch's own, their plain steps, and what people give them by mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from touchstone.nets.recurrent import GRU, LSTM, RNN, detach_state

from .recurrent_pairs import CASES, LAYERS, B, D, H, T, as_tuple, assert_equal, every_cell, inputs, pair

both_ways = pytest.mark.parametrize("hand_written", [True, False])


def gradients(net: nn.Module, x: Tensor, state: Any, run: Any) -> dict[str, Tensor]:
    """Gradients of a random combination of all outputs: of the input, the initial state and every parameter."""
    torch.manual_seed(2)
    output, after = run()
    values = [output.data if isinstance(output, PackedSequence) else output, *as_tuple(after)]
    wanted = {"x": x, **{f"state {i}": part for i, part in enumerate(as_tuple(state))}, **dict(net.named_parameters())}
    loss = sum((value * torch.randn(value.shape, dtype=value.dtype)).sum() for value in values)
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


@both_ways
@every_cell
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_torch(case: str, dtype: torch.dtype, hand_written: bool) -> None:
    net, oracle = pair(case, dtype, hand_written=hand_written)
    x, state = inputs(case, dtype)
    assert_equal(net(x, state), oracle(x, state), dtype)
    assert_equal(net(x), oracle(x), dtype)
    own = gradients(net, x, state, lambda: net(x, state))
    assert_equal(own, gradients(oracle, x, state, lambda: oracle(x, state)), dtype)


@every_cell
def test_a_state_dict_goes_to_torch_and_back(case: str) -> None:
    net, oracle = pair(case)
    assert list(net.state_dict()) == list(oracle.state_dict())
    oracle.load_state_dict(net.state_dict())
    net, oracle = (module(D, H, bias=False) for module in CASES[case][:2])
    oracle.load_state_dict(net.state_dict())
    x = torch.randn(B, T, D)
    torch.testing.assert_close(net(x)[0], oracle(x.transpose(0, 1))[0].transpose(0, 1))


@every_cell
def test_a_second_derivative_goes_through_the_plain_steps(case: str) -> None:
    own, _, extra = CASES[case]
    torch.manual_seed(0)
    net, (x, state) = own(D, H, LAYERS, **extra).double(), inputs(case, num_steps=2)

    def run(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        output, after = net(x, parts if case == "lstm" else parts[0])
        return output, *as_tuple(after)

    assert gradcheck(run, (x, *as_tuple(state)), fast_mode=True)
    assert gradgradcheck(run, (x, *as_tuple(state)), fast_mode=True)


@every_cell
def test_an_input_that_depends_on_another_is_differentiated_once(case: str) -> None:
    """The initial state as a function of the input, with a graph of the gradient and without."""
    net, oracle = pair(case)
    x, _ = inputs(case)
    for create_graph in (True, False):
        found = []
        for module in (net, oracle):
            first = torch.stack([x.sum(1).mean(1, keepdim=True).expand(B, H)] * LAYERS).contiguous()
            output, _ = module(x, (first, first) if case == "lstm" else first)
            found.append(torch.autograd.grad(output.square().sum(), x, create_graph=create_graph)[0])
        assert_equal(found[0], found[1])


@every_cell
def test_frozen_weights_get_no_gradient_and_the_input_its_own(case: str) -> None:
    net, oracle = pair(case)
    for module in (net, oracle):
        module.requires_grad_(False)
    x, _ = inputs(case)
    own, expected = (torch.autograd.grad(module(x)[0].sum(), x)[0] for module in (net, oracle))
    assert_equal(own, expected)


@both_ways
@every_cell
def test_lengths_and_packed_sequences_are_those_of_torch(case: str, hand_written: bool) -> None:
    net, oracle = pair(case, hand_written=hand_written)
    x, state = inputs(case)
    lengths = torch.tensor([4, 7, 1])

    def packed() -> PackedSequence:
        return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    expected, last = oracle(packed(), state)
    output, after = net(packed(), state)
    assert_equal([*output], [*expected])
    assert_equal(after, last)
    padded, _ = pad_packed_sequence(expected, batch_first=True)
    assert_equal(net(x, state, lengths=lengths), (padded, last))
    assert_equal(net(x, state, lengths=[4, 7, 1]), (padded, last))
    by_oracle = gradients(oracle, x, state, lambda: oracle(packed(), state))
    assert_equal(gradients(net, x, state, lambda: net(packed(), state)), by_oracle)
    whole = pack_padded_sequence(x, torch.tensor([7, 7, 2]), batch_first=True)
    assert_equal([*net(whole)[0]], [*oracle(whole)[0]])


@every_cell
def test_padding_that_is_not_a_number_has_no_influence(case: str) -> None:
    net, _ = pair(case)
    x, _ = inputs(case)
    spoilt = x.detach().clone()
    spoilt[0, 4:] = float("nan")
    assert_equal(net(spoilt, lengths=[4, 7, 7]), net(x, lengths=[4, 7, 7]))
    net(spoilt, lengths=[4, 7, 7])[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@every_cell
def test_a_carried_state_continues_the_sequence_and_truncates_its_gradient(case: str) -> None:
    net, _ = pair(case)
    x, state = inputs(case)
    output, after = net(x, state)
    first, between = net(x[:, :3], state)
    second, last = net(x[:, 3:], between)
    assert_equal(torch.cat([first, second], 1), output)
    assert_equal(last, after)
    second, _ = net(x[:, 3:], detach_state(between))
    (of_x,) = torch.autograd.grad(second.sum(), x)
    assert not of_x[:, :3].any()
    assert of_x[:, 3:].all()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_both_forms_of_the_recurrence_are_equivalent(nonlinearity: Any) -> None:
    """`h_t = W rho(h_{t-1}) + U x_t + b` by a loop of its own, and `g_t = rho(W g_{t-1} + U x_t + b)` by the net."""
    rho = getattr(torch, nonlinearity)
    torch.manual_seed(0)
    first_form = RNN(D, H, LAYERS, nonlinearity=nonlinearity).double()
    second_form = RNN(D, H, LAYERS, nonlinearity=nonlinearity, pre_activation=True).double()
    second_form.load_state_dict(first_form.state_dict())
    x, state = inputs("rnn")
    layer, states = x, []
    for number in range(LAYERS):
        u, w = (getattr(first_form, f"weight_{name}_l{number}") for name in ("ih", "hh"))
        b = getattr(first_form, f"bias_ih_l{number}") + getattr(first_form, f"bias_hh_l{number}")
        h, outputs = state[number], []
        for t in range(T):
            h = rho(h) @ w.T + layer[:, t] @ u.T + b
            outputs.append(h)
        states.append(h)
        layer = rho(torch.stack(outputs, 1))
    h_all, h_last = second_form(x, state)
    assert_equal(h_all, torch.stack(outputs, 1))
    assert_equal(h_last, torch.stack(states))
    g_all, g_last = first_form(x, rho(state))
    assert_equal(rho(h_all), g_all)
    assert_equal(rho(h_last), g_last)


@every_cell
def test_dropout_acts_between_layers_in_training_only(case: str) -> None:
    own, _, extra = CASES[case]
    torch.manual_seed(0)
    net = own(D, H, LAYERS, dropout=0.5, **extra)
    x = torch.randn(B, T, D)
    assert not torch.equal(net(x)[0], net(x)[0])
    assert (net(x)[0] != 0).float().mean() > 0.3  # the outputs of the last layer are left alone
    below = [as_tuple(module(x)[1])[0][0] for module in (net, net.eval())]  # what the first layer ends with
    assert torch.equal(*below)
    assert torch.equal(net(x)[0], net(x)[0])


@every_cell
def test_autocast_leaves_the_recurrence_in_the_dtype_of_its_weights(case: str) -> None:
    net, _ = pair(case, torch.float32)
    x, _ = inputs(case, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = net(x.bfloat16())
        output.sum().backward()
    assert output.dtype == torch.float32


@pytest.mark.parametrize("create_graph", [False, True])
@every_cell
def test_gradients_inside_autocast_are_those_outside(case: str, create_graph: bool) -> None:
    net, oracle = pair(case, torch.float32)
    x, _ = inputs(case, torch.float32)
    expected = torch.autograd.grad(oracle(x)[0].square().sum(), [x, *oracle.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x)[0].square().sum()
        found = torch.autograd.grad(loss, [x, *net.parameters()], create_graph=create_graph)
    assert_equal(found, expected, torch.float32)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks of shapes, which a trace holds as they were
@every_cell
def test_a_trace_computes_what_the_layer_does_and_has_its_gradients(case: str) -> None:
    net, _ = pair(case)
    x, other = (torch.randn(B, T, D, dtype=torch.float64, requires_grad=True) for _ in range(2))
    traced = torch.jit.trace(net, x)
    assert_equal(traced(other), net(other))
    for run in (traced, net):
        run(other)[0].square().sum().backward()
    assert_equal(other.grad, 2 * torch.autograd.grad(net(other)[0].square().sum(), other)[0])


@both_ways
@every_cell
def test_an_exported_layer_computes_what_that_of_torch_does(case: str, hand_written: bool) -> None:
    """Plain steps also by the strict way, which goes through dynamo."""
    net, oracle = pair(case, hand_written=hand_written)
    x, other = (torch.randn(B, T, D, dtype=torch.float64) for _ in range(2))
    exported = torch.export.export(net, (x,), strict=not hand_written).module()
    assert_equal(exported(other), oracle(other))


@both_ways
@every_cell
def test_of_no_sequences_outputs_and_gradients_are_those_of_torch(case: str, hand_written: bool) -> None:
    net, oracle = pair(case, hand_written=hand_written)
    x = torch.randn(0, T, D, dtype=torch.float64, requires_grad=True)
    expected, last = oracle(x)
    assert_equal(net(x), (expected, last))
    assert_equal(net(x, lengths=[]), (expected, last))
    net(x)[0].sum().backward()
    assert x.grad is not None
    assert not any(parameter.grad.any() for parameter in net.parameters())


def test_what_cannot_be_is_refused() -> None:
    net, x = LSTM(D, H, LAYERS), torch.randn(B, T, D)
    state = torch.zeros(LAYERS, B, H)
    with pytest.raises(
        ValueError, match=r"LSTM: the state must be h \(2, 3, 5\) and c \(2, 3, 5\) \(layers.*got \(2, 3"
    ):
        net(x, state)
    with pytest.raises(ValueError, match=r"RNN: the state must be h \(1, 3, 5\).*got \(2, 3, 5\)"):
        RNN(D, H)(x, state)
    with pytest.raises(ValueError, match=r"lengths must be 3 whole numbers from 1 to 7, got \[4, 0, 7\]"):
        net(x, lengths=[4, 0, 7])
    for no_lengths in ("ab", [1, None, 3], [[1], [1, 2], [3]]):
        with pytest.raises(ValueError, match=r"LSTM: lengths must be 3 whole numbers from 1 to 7, got ['\[]"):
            net(x, lengths=no_lengths)  # type: ignore[arg-type]
    for wrong_state, got in (((None, None), "NoneType, NoneType"), ("zeros", "str"), ((state, 3), r"\(2, 3, 5\), int")):
        with pytest.raises(ValueError, match=rf"LSTM: the state must be h .* \(layers, batch, units\), got {got}"):
            net(x, wrong_state)
    for lengths in ([4, 7], [4, 8, 1], [1.5, 2.0, 3.0], [True, True, True]):
        with pytest.raises(ValueError, match="lengths must be 3 whole numbers from 1 to 7"):
            net(x, lengths=lengths)
    with pytest.raises(ValueError, match="a packed sequence has its lengths"):
        net(pack_padded_sequence(x, torch.tensor([7, 7, 7]), batch_first=True), lengths=[1, 1, 1])
    for wrong in (x[0], x[..., :3], x[:, :0]):
        with pytest.raises(ValueError, match=r"the input must be \(batch, steps, 4\), at least one step, got"):
            net(wrong)
    for wrong, kind_of_it in ((None, "NoneType"), ([[1.0]], "list")):
        message = rf"the input must be a tensor \(batch, steps, 4\) or a PackedSequence, got {kind_of_it}"
        with pytest.raises(ValueError, match=message):
            net(wrong)
    with pytest.raises(ValueError, match=r"GRU\(hidden_size=...\) must be >= 1, got 0"):
        GRU(4, 0)
    with pytest.raises(ValueError, match=r"LSTM\(dropout=...\) must be in \[0, 1\), got 1"):
        LSTM(4, 5, dropout=1)
    for kind in (RNN, LSTM, GRU):
        assert kind(4, 5, batch_first=True, bidirectional=False)(x)[0].shape == (B, T, 5)
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\(batch_first=...\) must be True: .* got False"):
            kind(4, 5, batch_first=False)
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\(bidirectional=...\) must be False: .* got True"):
            kind(4, 5, bidirectional=True)
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\(proj_size=...\) must be 0: .* got 3"):
            kind(4, 5, proj_size=3)
    with pytest.raises(ValueError, match=r"RNN\(nonlinearity=...\) must be one of 'tanh', 'relu', got 'gelu'"):
        RNN(4, 5, nonlinearity="gelu")  # type: ignore[arg-type]
