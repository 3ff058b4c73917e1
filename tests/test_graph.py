"""`GraphNet`: in order, by paths, and with cycles as a recurrent net."""

from __future__ import annotations

import pickle
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import RNN
from touchstone.nets.graph import GraphNet, gradient_by_paths, paths, topological_order, weight_gradient_by_paths

from .lightning_programs import trainer


def diamonds(num_inputs: int = 2, num_neurons: int = 8) -> Tensor:
    """A random graph without cycles, its neurons numbered in no order that would help."""
    generator = torch.Generator().manual_seed(0)
    adjacency = (torch.rand(num_neurons, num_neurons, generator=generator) < 0.6).tril(-1)
    adjacency[:num_inputs] = False
    adjacency[-1, num_inputs:-1] = True
    inner = num_inputs + torch.randperm(num_neurons - num_inputs - 1, generator=generator)
    order = torch.cat([torch.arange(num_inputs), inner, torch.tensor([num_neurons - 1])])
    return adjacency[order][:, order]


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "identity"])
def test_a_gradient_is_the_sum_over_paths(nonlinearity: str) -> None:
    torch.manual_seed(0)
    net = GraphNet(diamonds(), num_inputs=2, num_outputs=1, nonlinearity=nonlinearity).double()  # type: ignore[arg-type]
    x = torch.randn(2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x[None])[0, 0], x)
    assert expected.abs().min() > 1e-3
    for source in range(2):
        assert len(paths(net.adjacency, source, 7)) > 3
        torch.testing.assert_close(gradient_by_paths(net, x, source, 7), expected[source])


def test_a_gradient_by_a_weight_is_the_sum_over_the_paths_through_it() -> None:
    torch.manual_seed(0)
    net, x = GraphNet(diamonds(), num_inputs=2, num_outputs=1).double(), torch.randn(2, dtype=torch.float64)
    (expected,) = torch.autograd.grad(net(x[None])[0, 0], net.weight)
    for i, j in net.adjacency.nonzero().tolist():
        torch.testing.assert_close(weight_gradient_by_paths(net, x, (i, j), 7), expected[i, j])
    with pytest.raises(ValueError, match=r"must be an edge \(i, j\) of the graph, got \(0, 7\)"):
        weight_gradient_by_paths(net, x, (0, 7), 7)


def test_a_chain_of_any_length_is_one_path() -> None:
    chain = torch.eye(3000, dtype=torch.bool).roll(1, 0)
    chain[0] = False
    assert paths(chain, 0, 2999) == [tuple(range(3000))]
    short = GraphNet(0.5 * chain[:4, :4], num_inputs=1, num_outputs=1, nonlinearity="identity")
    assert gradient_by_paths(short, torch.ones(1), 0, 3).item() == 0.5**3


@pytest.mark.parametrize("wrong", [-1, 8])
def test_what_is_no_neuron_is_refused(wrong: int) -> None:
    net, x = GraphNet(diamonds(), num_inputs=2, num_outputs=1), torch.zeros(2)
    i, j = net.adjacency.nonzero()[0].tolist()
    named = rf"=...\) must be a neuron, 0 to 7, got {wrong}$"
    with pytest.raises(ValueError, match=r"^paths\(source" + named):
        paths(net.adjacency, wrong, 7)
    with pytest.raises(ValueError, match=r"^gradient_by_paths\(source" + named):
        gradient_by_paths(net, x, wrong, 7)
    with pytest.raises(ValueError, match=r"^gradient_by_paths\(target" + named):
        gradient_by_paths(net, x, 0, wrong)
    with pytest.raises(ValueError, match=r"^weight_gradient_by_paths\(target" + named):
        weight_gradient_by_paths(net, x, (i, j), wrong)
    for edge in ((wrong, j), (i, wrong), (wrong, wrong)):
        with pytest.raises(ValueError, match=r"\(edge=...\) must be an edge \(i, j\) of the graph, got"):
            weight_gradient_by_paths(net, x, edge, 7)


@pytest.mark.parametrize("as_list", [True, False])
def test_a_matrix_of_floats_gives_the_weights_and_one_of_whole_numbers_the_edges(as_list: bool) -> None:
    """`y = -1.5 tanh(0.5 x)`, from a matrix; a gradient reaches the two weights alone."""
    weights = [[0.0, 0, 0], [0.5, 0, 0], [0, -1.5, 0]]
    net = GraphNet(weights if as_list else torch.tensor(weights), num_inputs=1, num_outputs=1)
    assert net.edges.tolist() == weights
    x = torch.linspace(-2, 2, 5)[:, None]
    torch.testing.assert_close(net(x), -1.5 * torch.tanh(0.5 * x))
    net(x).square().sum().backward()
    assert net.weight.grad is not None
    assert net.weight.grad.nonzero().tolist() == [[1, 0], [2, 1]]
    whole = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    drawn = GraphNet(whole if as_list else torch.tensor(whole), num_inputs=1, num_outputs=1)
    assert drawn.adjacency.tolist() == net.adjacency.tolist()
    assert len(set(drawn.edges[drawn.adjacency].tolist()) - {1.0}) == 2


def test_layers_as_a_graph_are_the_layers() -> None:
    """Two inputs, three hidden neurons, one output: a multilayer perceptron."""
    adjacency = torch.zeros(6, 6, dtype=torch.int64)
    adjacency[2:5, :2] = 1
    adjacency[5, 2:5] = 1
    torch.manual_seed(0)
    net, x = GraphNet(adjacency, num_inputs=2, num_outputs=1), torch.randn(7, 2)
    hidden = torch.tanh(x @ net.weight[2:5, :2].T + net.bias[2:5])
    torch.testing.assert_close(net(x), hidden @ net.weight[5:, 2:5].T + net.bias[5:])
    # As many steps as the longest path has edges give the same.
    stepped = GraphNet(adjacency, num_inputs=2, num_outputs=1, num_steps=2)
    stepped.load_state_dict(net.state_dict())
    torch.testing.assert_close(stepped(x), net(x))


def test_an_order_puts_each_neuron_behind_what_it_reads() -> None:
    order = topological_order(diamonds())
    assert order is not None
    place = {neuron: position for position, neuron in enumerate(order)}
    assert all(place[j] < place[i] for i, j in diamonds().nonzero().tolist())
    assert topological_order(torch.eye(3)) is None
    assert topological_order(torch.tensor([[0, 1], [1, 0]])) is None


def test_cycles_are_a_recurrent_net() -> None:
    """`RNN`, given the input at every step, with the matrices of the graph; the diagonal is part of it."""
    adjacency = torch.ones(7, 7, dtype=torch.bool)
    adjacency[:2] = False
    torch.manual_seed(0)
    net, x = GraphNet(adjacency, num_inputs=2, num_outputs=2, num_steps=4).double(), torch.randn(3, 2).double()
    rnn = RNN(2, 5, pre_activation=True).double()
    state = {"weight_ih_l0": net.edges[2:, :2], "weight_hh_l0": net.edges[2:, 2:], "bias_ih_l0": net.bias[2:]}
    rnn.load_state_dict({**state, "bias_hh_l0": torch.zeros(5)})
    output, _ = rnn(x[:, None].expand(-1, 4, -1))
    torch.testing.assert_close(net(x), output[:, -1, -2:])


def test_what_is_no_edge_has_no_influence_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    net, x = GraphNet(diamonds(), num_inputs=2, num_outputs=1), torch.randn(3, 2)
    before = net(x)
    before.sum().backward()
    assert net.weight.grad is not None
    assert not net.weight.grad[~net.adjacency].any()
    net.weight.data[~net.adjacency] = 100.0
    torch.testing.assert_close(net(x), before)


def test_a_graph_with_cycles_learns_the_digits(tmp_path: Path) -> None:
    pl.seed_everything(0)
    adjacency = torch.rand(64 + 40, 64 + 40) < 0.5
    adjacency[:64] = False
    net = GraphNet(adjacency, num_inputs=64, num_outputs=10, num_steps=4)
    module = Classifier(net, lambda p: torch.optim.Adam(p, lr=1e-2))
    run = trainer(tmp_path, max_epochs=6)
    run.fit(module, datamodule=DigitsDataModule())
    assert float(run.callback_metrics["val/accuracy"]) > 0.9


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "identity"])
def test_a_net_that_was_pickled_computes_the_same(nonlinearity: str) -> None:
    net = GraphNet(diamonds(), num_inputs=2, num_outputs=1, nonlinearity=nonlinearity)  # type: ignore[arg-type]
    x = torch.randn(3, 2)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


def test_a_net_that_takes_the_weights_of_another_graph_computes_that_one() -> None:
    one = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    other = [[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]]  # neuron 1 behind neuron 2
    source, net = (GraphNet(graph, num_inputs=1, num_outputs=1) for graph in (one, other))
    Classifier(net).load_state_dict(Classifier(source).state_dict())
    x = torch.randn(3, 1)
    assert torch.equal(net(x), source(x))
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), source(x))
    ring = [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    cyclic = GraphNet(ring, num_inputs=1, num_outputs=1, num_steps=3)
    with pytest.raises(ValueError, match=r"num_steps=...\) must be given for a graph with cycles, got None"):
        net.load_state_dict(cyclic.state_dict())
    assert torch.equal(net(x), source(x))


def test_what_cannot_be_is_refused() -> None:
    for options, message in (
        ({"adjacency": torch.ones(2, 3)}, r"adjacency=...\) must be a square matrix, got \(2, 3\)"),
        ({"adjacency": torch.ones(4, 4)}, "the first 2 rows, of the inputs, must be empty"),
        ({"adjacency": diamonds() * float("nan")}, r"adjacency=...\) must be finite weights, got nan at \(0, 0\)"),
        ({"adjacency": diamonds() * 3}, r"must be 0 and 1, or weights as floats, got 3 at \(3, 0\)"),
        ({"num_outputs": 7}, "together at most the 8 neurons, got 2 and 7"),
        ({"nonlinearity": "gelu"}, "must be one of 'tanh', 'relu', 'identity', got 'gelu'"),
        ({"num_steps": 0}, r"GraphNet\(num_steps=...\) must be >= 1, or None for .*, got 0"),
        ({"adjacency": torch.eye(8) * (torch.arange(8) > 1)}, "must be given for a graph with cycles, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            GraphNet(**{"adjacency": diamonds(), "num_inputs": 2, "num_outputs": 1, **options})  # type: ignore[arg-type]
    ring = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 1, 0]])
    with pytest.raises(ValueError, match="paths: the graph must have no cycle"):
        paths(ring, 0, 2)
    for adjacency in (ring, ring.tril()):
        stepped = GraphNet(adjacency, num_inputs=1, num_outputs=1, num_steps=3)
        with pytest.raises(ValueError, match="gradient_by_paths: the net must have no cycle and .* got num_steps=3"):
            gradient_by_paths(stepped, torch.zeros(1), 0, 2)
    with pytest.raises(ValueError, match="the input must have 2 values, got 3"):
        GraphNet(diamonds(), num_inputs=2, num_outputs=1)(torch.zeros(1, 3))
