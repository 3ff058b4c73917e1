"""`RecurrentJacobian`: norms against whole Jacobians, verdicts against closed forms, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import RandomFlips, TokenFlips
from touchstone.callbacks import RecurrentJacobian, RobustAccuracy
from touchstone.callbacks.parts.measures.lag_norms import lag_norms
from touchstone.callbacks.parts.measures.recurrent_matrices import vanishing_bound
from touchstone.callbacks.recurrent_jacobian import _picture
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import GRU, LSTM, RNN, RecurrentLM, TextClassifier

from .lightning_programs import events, trainer


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


class LastOutput(nn.Module):
    """A recurrent net that classifies sequences by its last output."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.recurrent = RNN(1, 6, nonlinearity="relu")
        self.read_out = nn.Linear(6, 2)
        self.recurrent.weight_hh_l0.data = scale * torch.eye(6)  # with relu and inputs > 0: powers of the scale
        self.recurrent.weight_ih_l0.data.abs_()
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(self.recurrent, name).data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.recurrent(x)[0][:, -1])


def sequences() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 12, 1, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum((1, 2)) > 6).long()), 4)


def verdict_of(folder: Path) -> str:
    return events(folder).Tensors("jacobian/val/verdict/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(("scale", "verdict"), [(0.8, "vanishing"), (1.0, "stable"), (1.2, "exploding")])
def test_powers_of_a_matrix_are_logged_drawn_and_judged(tmp_path: Path, scale: float, verdict: str) -> None:
    module, callback = Classifier(LastOutput(scale)), RecurrentJacobian(lags=[1, 3, 10, 50])
    run = trainer(tmp_path, callback)
    run.validate(module, sequences(), verbose=False)
    for lag in (1, 3, 10):
        assert float(run.callback_metrics[f"jacobian/val/lag_{lag}"]) == pytest.approx(scale**lag, rel=1e-4)
    assert "jacobian/val/lag_50" not in run.callback_metrics
    assert float(run.callback_metrics["jacobian/val/singular_value"]) == pytest.approx(scale, rel=1e-5)
    assert float(run.callback_metrics["jacobian/val/vanishing_bound"]) == 1
    assert verdict_of(tmp_path).startswith(verdict)
    assert events(tmp_path).Images("jacobian/val")
    assert not module.net.recurrent._forward_pre_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("scale", "verdict"), [(1.6, "exploding: a change of the state is 2.58e+20"), (0.3, "vanishing")]
)
def test_verdicts_on_a_hundred_steps_are_those_of_the_powers(tmp_path: Path, scale: float, verdict: str) -> None:
    data = DataLoader(TensorDataset(torch.rand(4, 100, 1), torch.arange(4) % 2), 4)
    run = trainer(tmp_path, RecurrentJacobian(lags=[20, 50, 100]))
    run.validate(Classifier(LastOutput(scale)), data, verbose=False)
    for lag in (20, 50):
        assert float(run.callback_metrics[f"jacobian/val/lag_{lag}"]) == pytest.approx(scale**lag, rel=1e-5)
    assert verdict_of(tmp_path).startswith(verdict)


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
def test_singular_values_of_all_layers_are_logged_and_a_bound_where_there_is_one(tmp_path: Path, cell: Any) -> None:
    module, sigmas = Classifier(LastOutput(1.0)), (1.3, 0.5)
    net = module.net.recurrent = cell(1, 6, 2)  # type: ignore[union-attr]
    for layer, sigma in enumerate(sigmas):
        weight = getattr(net, f"weight_hh_l{layer}")
        weight.data *= sigma / torch.linalg.svdvals(weight.data)[0]
    run = trainer(tmp_path, RecurrentJacobian(lags=[1]))
    run.validate(module, sequences(), verbose=False)
    logged = {name.removeprefix("jacobian/val/"): float(value) for name, value in run.callback_metrics.items()}
    assert logged["singular_value"] == logged["singular_value/l0"] == pytest.approx(1.3)
    assert logged["singular_value/l1"] == pytest.approx(0.5)
    assert ("vanishing_bound" in logged) == (cell is RNN)


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


def test_norms_that_are_no_numbers_or_0_are_said_in_words(tmp_path: Path) -> None:
    judge = RecurrentJacobian().verdict
    assert judge({1: 1.0, 50: float("nan")}) == (
        "unknown: the norm over 50 steps is not a number, since weights or states are not finite"
    )
    assert judge({50: 0.0}) == "vanishing: a change of the state is less than 1e-308 times as large 50 steps later"
    assert judge({50: float("inf")}).startswith("exploding: a change of the state is more than 1e308 times")
    broken = Classifier(LastOutput(float("nan")))
    trainer(tmp_path / "broken", RecurrentJacobian(lags=[2])).validate(broken, sequences(), verbose=False)
    assert verdict_of(tmp_path / "broken").startswith("unknown: the norm over 2 steps is not a number")
    module = Classifier(LastOutput(1.0))
    module.net.recurrent.weight_ih_l0.data.neg_()  # type: ignore[union-attr,operator]
    x = torch.tensor([1.0, -1.0, -1.0, -1.0])[:, None, None].expand(4, 12, 1)  # the first one's units are dead
    run = trainer(tmp_path / "dead", RecurrentJacobian(lags=[10]))
    run.validate(module, DataLoader(TensorDataset(x, torch.arange(4) % 2), 4), verbose=False)
    assert float(run.callback_metrics["jacobian/val/lag_10"]) == pytest.approx(1)
    assert verdict_of(tmp_path / "dead") == (
        "stable: a change of the state is 1 times as large 10 steps later (0 for 1 of 4 sequences)"
    )


class CallsItIn(nn.Module):
    """Calls a recurrent net in some way of its own, with sequences of which three steps are real."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.recurrent, self.read_out = RNN(1, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        lengths = [3] * len(x)
        if self.way == "lengths":
            _, last = self.recurrent(x, lengths=lengths)
        elif self.way == "keywords":
            _, last = self.recurrent(lengths=torch.tensor(lengths), x=x, state=None)
        elif self.way == "packed":
            _, last = self.recurrent(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))
        else:
            _, last = self.recurrent(x[:, :3])
        return self.read_out(last[-1])


def test_the_last_real_step_is_measured_however_the_net_is_called(tmp_path: Path) -> None:
    found = {}
    for way in ("cut", "lengths", "keywords", "packed"):
        torch.manual_seed(0)
        run = trainer(tmp_path / way, RecurrentJacobian(lags=[1, 3, 4]))
        run.validate(Classifier(CallsItIn(way)), sequences(), verbose=False)
        found[way] = {tag: float(value) for tag, value in run.callback_metrics.items() if "lag_" in tag}
    assert sorted(found["cut"]) == ["jacobian/val/lag_1", "jacobian/val/lag_3"]
    assert all(figures == pytest.approx(found["cut"]) for figures in found.values())


def test_padding_of_texts_is_no_step(tmp_path: Path) -> None:
    tokens, found = torch.randint(1, 7, (4, 5), generator=torch.Generator().manual_seed(0)), []
    padded = torch.cat([torch.cat([tokens, tokens.new_zeros(4, 6)], 1), tokens.new_zeros(1, 11)])
    for x in (tokens, padded.flip(0)):
        torch.manual_seed(0)
        run = trainer(tmp_path, RecurrentJacobian(num_sequences=4))
        data = DataLoader(TensorDataset(x, torch.arange(len(x)) % 2), 5)
        run.validate(Classifier(TextClassifier(7, 2, body="gru", dim=4)), data, verbose=False)
        found.append({tag: float(value) for tag, value in run.callback_metrics.items() if "lag_" in tag})
    assert sorted(found[0]) == [f"jacobian/val/lag_{lag}" for lag in (1, 2, 5)]
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_sequences_are_taken_from_as_many_batches_as_they_fill(tmp_path: Path) -> None:
    """In batches of two, each as long as its longest text, and attacked: the norms of the first nine in one batch."""
    x = torch.randint(1, 7, (14, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([3, 5, 9, 4, 6, 6, 0, 7, 5, 8, 9, 3, 9, 9])
    x, y = torch.where(torch.arange(9) < lengths[:, None], x, 0), torch.arange(14) % 2
    batches = [(x[i : i + 2, : lengths[i : i + 2].max()], y[i : i + 2]) for i in range(0, 14, 2)]
    flips = RandomFlips(threat=TokenFlips(1, vocab_size=7, protected=(0,)))
    found = []
    for name, loader in (("whole", DataLoader(TensorDataset(x, y), 14)), ("two", DataLoader(batches, batch_size=None))):  # type: ignore[arg-type]
        torch.manual_seed(0)
        callbacks = (RobustAccuracy({"flips": flips}, num_images=0), RecurrentJacobian(num_sequences=9, lags=[1, 4, 8]))
        run = trainer(tmp_path / name, *callbacks)
        run.validate(Classifier(TextClassifier(7, 2, body="gru", dim=4)), loader, verbose=False)
        found.append({tag: float(value) for tag, value in run.callback_metrics.items() if "lag_" in tag})
    assert len(found[0]) == 3
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_sequences_of_later_batches_begin_where_their_state_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(7, (4, 2, 6))
    module = LanguageModel(RecurrentLM(7, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    run = trainer(tmp_path, RecurrentJacobian(num_sequences=5, lags=[3]))
    data = DataLoader([(batch[:, :-1], batch[:, 1:]) for batch in tokens], batch_size=None)  # type: ignore[arg-type]
    run.validate(module, data, verbose=False)
    net, state, norms = module.net.recurrent, None, []
    for batch in tokens[:3]:
        x = module.net.embedding(batch[:, :-1]).detach()
        norms += lag_norms(net, x, [3], 20, state=state)[3].tolist()  # type: ignore[arg-type]
        with torch.no_grad():
            state = net(x, state)[1]  # type: ignore[operator]
    expected = torch.tensor(norms[:5]).log().mean().exp()
    assert float(run.callback_metrics["jacobian/val/lag_3"]) == pytest.approx(float(expected), rel=1e-4)


def test_several_loaders_are_measured_one_by_one(tmp_path: Path) -> None:
    generator, found = torch.Generator().manual_seed(0), []
    loaders = [
        DataLoader(
            TensorDataset(torch.randint(first, first + 3, (12, 9), generator=generator), torch.arange(12) % 2), 6
        )
        for first in (1, 4)
    ]
    for name, given in (("each", [*loaders]), *((f"of {number}", [loader]) for number, loader in enumerate(loaders))):
        torch.manual_seed(0)
        run = trainer(tmp_path / name, RecurrentJacobian(lags=[1, 4]))
        run.validate(Classifier(TextClassifier(7, 2, body="gru", dim=4)), given, verbose=False)
        found.append({tag: float(value) for tag, value in run.callback_metrics.items() if "jacobian" in tag})
        verdicts = [tag for tag in events(tmp_path / name).Tags()["tensors"] if "verdict" in tag]
        assert len(verdicts) == len(given)
    each = {f"{tag}/dataloader_idx_{number}": v for number in (0, 1) for tag, v in found[1 + number].items()}
    assert found[0] == pytest.approx(each)
    assert found[1]["jacobian/val/lag_4"] != pytest.approx(found[2]["jacobian/val/lag_4"], rel=1e-3)


def test_measuring_does_not_change_training(tmp_path: Path) -> None:
    trained = []
    for name, callbacks in (("alone", []), ("measured", [RecurrentJacobian(num_iterations=3)])):
        torch.manual_seed(0)
        module = Classifier(LastOutput(0.9))
        trainer(tmp_path / name, *callbacks, max_epochs=2).fit(module, sequences(), sequences())
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def test_pictures_are_drawn_where_those_of_attacks_are(tmp_path: Path) -> None:
    module = Classifier(LastOutput(0.9))
    run = trainer(tmp_path, RecurrentJacobian(lags=[1], images_every_n_epochs=3), max_epochs=8, limit_train_batches=1)
    run.fit(module, sequences(), sequences())
    assert [picture.step for picture in events(tmp_path).Images("jacobian/val")] == [0, 2, 5, 7]
    assert len(events(tmp_path).Scalars("jacobian/val/lag_1")) == 8


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"RecurrentJacobian\(num_sequences=...\) must be >= 1, got 0"):
        RecurrentJacobian(num_sequences=0)
    with pytest.raises(ValueError, match=r"lags=...\) must be >= 1, got 0"):
        RecurrentJacobian(lags=[0, 3])
    with pytest.raises(ValueError, match=r"tolerance=...\) must be > 0, got 0"):
        RecurrentJacobian(tolerance=0)
    wrong = RecurrentJacobian(layer="net.gru")
    with pytest.raises(ValueError, match=r"layer='net.gru'\): the module has the recurrent nets \['net.recurrent'\]"):
        trainer(tmp_path, wrong).validate(Classifier(LastOutput(1.0)), sequences(), verbose=False)


def test_a_layer_that_there_is_not_is_refused_before_training(tmp_path: Path) -> None:
    run = trainer(tmp_path, RecurrentJacobian(layer="net.gru"))
    with pytest.raises(ValueError, match=r"layer='net.gru'\): the module has the recurrent nets \['net.recurrent'\]"):
        run.fit(Classifier(LastOutput(1.0)), sequences(), sequences())
    assert run.global_step == 0


@pytest.mark.parametrize("norms", [[1.02, 1.1, 1.45], [0.9, 0.6, 0.2], [0.5, 0.02, 0.015], [0.97, 0.96, 0.955]])
def test_a_small_range_has_several_ticks_that_are_plain_numbers(norms: list[float]) -> None:
    (axes,) = _picture(dict(enumerate(norms, 1)), "").axes
    lowest, highest = axes.get_ylim()
    ticks = [label.get_text() for label in axes.get_yticklabels(which="both") if label.get_text()]
    assert len([tick for tick in map(float, ticks) if lowest <= tick <= highest]) >= 4
