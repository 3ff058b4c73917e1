"""`Saturation` and `AttentionMaps`: shares against closed forms and torch's cells, maps against torch's attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import AttentionMaps, Saturation
from touchstone.callbacks.attention_maps import attention_maps, maps_picture
from touchstone.lightning_modules import Classifier
from touchstone.nets import GRU, LSTM, RNN, TextClassifier, TransformerBlock
from touchstone.nets.graph import GraphNet
from touchstone.nets.parts.gates import Gates

from .lightning_programs import events, trainer
from .saturated_units import gates_of, measured, seeded


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


both_ways = pytest.mark.parametrize("hand_written", [True, False])


@both_ways
def test_the_gates_of_an_lstm_move_torchs_cell(x: Tensor, hand_written: bool) -> None:
    """With torch's cell stepping, c_t = f c + i g and h_t = o tanh(c_t) at every step and layer."""
    net = seeded(lambda: LSTM(4, 6, num_layers=2, hand_written=hand_written))
    gates, inputs = gates_of(net, x), x
    for layer in range(2):
        cell = nn.LSTMCell(4 if layer == 0 else 6, 6).double()
        for name, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), net.weights_of(layer), strict=True):
            getattr(cell, name).data.copy_(weight)
        h, c, outputs = x.new_zeros(3, 6), x.new_zeros(3, 6), []
        for t in range(5):
            i, f, g, o, tanh_c = (gates[f"l{layer}.{name}"][1][:, t] for name in "ifgoc")
            after, c_after = cell(inputs[:, t], (h, c))
            assert torch.allclose(f * c + i * g, c_after)
            assert torch.allclose(o * tanh_c, after)
            assert torch.allclose(tanh_c, c_after.tanh())
            h, c = after, c_after
            outputs.append(h)
        inputs = torch.stack(outputs, 1)


@both_ways
def test_the_gates_of_a_gru_move_torchs_cell(x: Tensor, hand_written: bool) -> None:
    net, cell = seeded(lambda: GRU(4, 6, hand_written=hand_written)), nn.GRUCell(4, 6).double()
    for name, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), net.weights_of(0), strict=True):
        getattr(cell, name).data.copy_(weight)
    gates, h = gates_of(net, x), x.new_zeros(3, 6)
    for t in range(5):
        z, n = gates["l0.z"][1][:, t], gates["l0.n"][1][:, t]
        after = cell(x[:, t], h)
        assert torch.allclose((1 - z) * n + z * h, after)
        h = after
    assert ((gates["l0.r"][1] > 0) & (gates["l0.r"][1] < 1)).all()


@both_ways
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_units_of_an_rnn_are_torchs_outputs(x: Tensor, nonlinearity: str, hand_written: bool) -> None:
    net = seeded(lambda: RNN(4, 6, num_layers=2, nonlinearity=nonlinearity, hand_written=hand_written))
    oracle = nn.RNN(4, 6, num_layers=2, nonlinearity=nonlinearity, batch_first=True).double()
    oracle.load_state_dict(net.state_dict())
    kind, values = gates_of(net, x)["l1"]
    assert kind == nonlinearity
    assert torch.allclose(values, oracle(x)[0])


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_who_listens_changes_no_gradient(x: Tensor, kind: type[RNN | LSTM | GRU]) -> None:
    net = seeded(lambda: kind(4, 6, num_layers=2))
    plain = torch.autograd.grad(net(x)[0].pow(2).sum(), list(net.parameters()))
    gates = Gates(net, lambda name, kind, values: None)
    heard = torch.autograd.grad(net(x)[0].pow(2).sum(), list(net.parameters()))
    gates.remove()
    assert all(torch.equal(one, other) for one, other in zip(plain, heard, strict=True))


def test_shares_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Units that receive x + b: the biases say which are saturated, for which samples."""
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2), nn.Sigmoid())
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            layer.weight.zero_()
            layer.bias.zero_()
        net[0].weight[:2, 0] = torch.tensor([1.0, 1.0])
        net[0].bias.copy_(torch.tensor([0.0, 3.0, 5.0, 0.0]))  # x, x + 3, 5 and 0
        net[2].weight[0, 0] = 1.0  # relu(tanh(x)), and relu(-1), which is dead
        net[2].bias[1] = -1.0
        net[4].bias.copy_(torch.tensor([0.0, -9.0]))  # a sigmoid of a half, and one of nothing
    x = torch.tensor([[-9.0], [-1.0], [0.5], [1.0], [4.0]])
    found = measured(Saturation(), net, x, tmp_path)
    # tanh: |x| > 2.09 in 2 of 5; |x + 3| > 2.09 for -9, .5, 1 and 4; always; never.
    assert found["saturation/val/net.1"] == pytest.approx((2 + 4 + 5 + 0) / 20)
    assert found["saturation/val/net.1/dead"] == pytest.approx(1 / 4)
    assert found["saturation/val/net.3"] == pytest.approx((2 + 5) / 10)
    assert found["saturation/val/net.3/dead"] == pytest.approx(1 / 2)
    assert found["saturation/val/net.5"] == pytest.approx(1 / 2)
    assert found["saturation/val/net.5/dead"] == pytest.approx(1 / 2)


def test_gates_of_a_recurrent_body_are_layers_of_their_own(tmp_path: Path) -> None:
    net = TextClassifier(7, 3, body="lstm", dim=4)
    with torch.no_grad():
        for parameter in net.recurrent.parameters():
            parameter.zero_()
        net.recurrent.bias_ih_l0[:4] = 9.0  # the input gates stand open
        net.recurrent.bias_ih_l0[4:6] = -9.0  # half of the forget gates are shut
    found = measured(Saturation(), net, torch.randint(7, (5, 6)), tmp_path)
    shares = {name: found[f"saturation/val/net.recurrent.l0.{name}"] for name in "ifgoc"}
    assert shares == {"i": 1, "f": 0.5, "g": 0, "o": 0, "c": 0}
    assert found["saturation/val/net.recurrent.l0.f/dead"] == 0.5


def test_the_relu_of_a_transformer_block_is_counted(tmp_path: Path) -> None:
    net, x = seeded(lambda: TextClassifier(7, 3, body="transformer", dim=4)).float(), torch.randint(1, 7, (5, 6))
    found = measured(Saturation(), net, x, tmp_path)
    block, hidden = net.blocks[0], []
    handle = block.feed_forward.first.register_forward_hook(lambda module, args, output: hidden.append(output))
    net.eval()(x)
    handle.remove()
    zeros = hidden[0] <= 0
    assert found["saturation/val/net.blocks.0.feed_forward"] == pytest.approx(float(zeros.double().mean()))
    dead = zeros.flatten(0, 1).all(0).double().mean()
    assert found["saturation/val/net.blocks.0.feed_forward/dead"] == pytest.approx(float(dead))


class Shared(nn.Module):
    """One relu behind three units, of which one is dead, and behind two, of which one is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu, self.read_out = nn.Linear(1, 3), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)
        with torch.no_grad():
            for layer, biases in ((self.first, [1.0, -1.0, 1.0]), (self.second, [-1.0, 1.0])):
                layer.weight.zero_()
                layer.bias.copy_(torch.tensor(biases))

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.relu(self.second(self.relu(self.first(x)))))


def test_a_module_of_several_widths_is_a_layer_for_each(tmp_path: Path) -> None:
    found = measured(Saturation(), Shared(), torch.rand(5, 1), tmp_path)
    assert {tag.removeprefix("saturation/val/net."): value for tag, value in found.items()} == {
        "relu/3": pytest.approx(1 / 3),
        "relu/3/dead": pytest.approx(1 / 3),
        "relu/2": 0.5,
        "relu/2/dead": 0.5,
    }


@pytest.mark.parametrize("num_steps", [None, 3])
def test_neurons_of_a_graph_that_others_read_are_counted(tmp_path: Path, num_steps: int | None) -> None:
    """An input, three neurons that the output reads, and two classes: a neuron at 5, one at -5 and one that is x."""
    reads = torch.zeros(6, 6, dtype=torch.bool)
    reads[1:4, 0] = reads[4:, 1:4] = True
    net = GraphNet(reads, num_inputs=1, num_outputs=2, nonlinearity="relu", num_steps=num_steps)
    with torch.no_grad():
        net.weight[1:4, 0], net.bias[1:4] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([5.0, -5.0, 0.0])
    found = measured(Saturation(), net, torch.tensor([[-1.0], [2.0], [3.0], [4.0]]), tmp_path)
    assert found == {"saturation/val/net": pytest.approx(5 / 12), "saturation/val/net/dead": pytest.approx(1 / 3)}


def test_they_do_not_change_training(tmp_path: Path) -> None:
    data = TensorDataset(torch.randint(7, (8, 6), generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
    trained = []
    for name, callbacks in (("alone", []), ("watched", [Saturation(), AttentionMaps()])):
        torch.manual_seed(2)
        model = Classifier(TextClassifier(7, 3, body="transformer", dim=8, dropout=0.2))
        trainer(tmp_path / name, *callbacks).fit(model, DataLoader(data, 4), DataLoader(data, 4))
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])
    assert events(tmp_path / "watched").Tags()["images"] == ["attention/val"]


def test_maps_are_those_of_torchs_attention(x: Tensor) -> None:
    block = seeded(lambda: TransformerBlock(4, 2, norm="post", causal=True))
    oracle = nn.MultiheadAttention(4, 2, batch_first=True).double()
    oracle.in_proj_weight.data.copy_(block.attention.qkv.weight)
    oracle.in_proj_bias.data.copy_(block.attention.qkv.bias)
    blocked = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = oracle(x, x, x, attn_mask=blocked, average_attn_weights=False)[1]
    found = attention_maps(nn.Sequential(block), x)
    assert list(found) == ["0.attention"]
    assert torch.allclose(found["0.attention"], expected)
    assert not block.attention._forward_hooks


def test_a_net_that_asks_for_its_maps_shows_them_too(x: Tensor) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = TransformerBlock(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            mixed, maps = self.block(x, return_maps=True)
            return mixed * maps.mean()

    net = seeded(Asking)
    assert torch.equal(attention_maps(net, x)["block.attention"], net.block(x, return_maps=True)[1])


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("tokens", [["a", "internationalization", "incomprehensibilities"], [*"abcdefghijklmnop"]])
def test_no_text_of_a_picture_of_maps_is_cut_off(tokens: list[str], num_heads: int) -> None:
    maps = {f"layers.{number}.attention": torch.rand(num_heads, len(tokens), len(tokens)) for number in range(2)}
    figure = maps_picture(maps, tokens)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in figure.findobj(Text) if text.get_text()]
    assert len(boxes) >= 2 * num_heads * (2 * len(tokens) + 1)
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_what_has_no_such_units_is_refused(tmp_path: Path) -> None:
    data = DataLoader(TensorDataset(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), 2)
    for callback, message in (
        (Saturation(), "Saturation: the model has no tanh, sigmoid or relu that is a module of its own"),
        (AttentionMaps(), "AttentionMaps: the model has no Attention of touchstone.nets"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(tmp_path, callback).validate(Classifier(nn.Linear(3, 2)), data, verbose=False)
    with pytest.raises(ValueError, match=r"Saturation\(threshold=...\) must be in \(0, 1\), got 1"):
        Saturation(threshold=1)
    with pytest.raises(ValueError, match=r"AttentionMaps\(max_tokens=...\) must be >= 1, got 0"):
        AttentionMaps(max_tokens=0)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (AttentionMaps(), "AttentionMaps: the model has no Attention of touchstone.nets"),
        (Saturation(), "Saturation: the model has no tanh, sigmoid or relu .* as functions, .* others, such as gelu"),
    ],
)
def test_a_model_without_what_is_looked_for_is_refused_before_training(
    tmp_path: Path, callback: AttentionMaps | Saturation, message: str
) -> None:
    data = DataLoader(TensorDataset(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), 2)
    run = trainer(tmp_path, callback)
    with pytest.raises(ValueError, match=message):
        run.fit(Classifier(nn.Sequential(nn.Linear(3, 2), nn.GELU())), data, data)
    assert run.global_step == 0
