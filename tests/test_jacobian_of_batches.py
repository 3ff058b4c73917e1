"""Which sequences `RecurrentJacobian` measures, from where to where, however they come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import RandomFlips, TokenFlips
from touchstone.callbacks import RecurrentJacobian, RobustAccuracy
from touchstone.callbacks.parts.measures.lag_norms import lag_norms
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RNN, RecurrentLM, TextClassifier

from .last_output import sequences
from .lightning_programs import events, trainer


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
