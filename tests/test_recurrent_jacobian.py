"""`RecurrentJacobian`: what it logs, draws and says of powers of a matrix, what it leaves alone and refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import RecurrentJacobian
from touchstone.callbacks.recurrent_jacobian import _picture
from touchstone.lightning_modules import Classifier
from touchstone.nets import GRU, LSTM, RNN

from .last_output import LastOutput, sequences
from .lightning_programs import events, trainer


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


class Beside(LastOutput):
    """Answers without its recurrent net, as one seems to that `torch.compile` has worked on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read_out(x[:, :6, 0])


def test_a_net_of_which_no_call_is_seen_is_named_once_in_a_fit(tmp_path: Path) -> None:
    run = trainer(tmp_path, RecurrentJacobian(), max_epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Classifier(Beside(1.0)), sequences(), sequences())
    said = [str(warning.message) for warning in caught if "RecurrentJacobian" in str(warning.message)]
    assert len(said) == 1
    assert said[0].startswith("RecurrentJacobian measures nothing: no call of the recurrent net was seen")
    assert not [tag for tag in run.callback_metrics if tag.startswith("jacobian/")]


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
