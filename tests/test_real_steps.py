"""What `Saturation` takes for steps: padding, packed sequences, and texts that stand time first or are turned round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from touchstone.callbacks import Saturation
from touchstone.callbacks.parts.passes.real_steps import RealSteps
from touchstone.nets import GRU, LSTM, RNN, TextClassifier

from .saturated_units import gates_of, measured, seeded


class Steps(nn.Module):
    """Ten units at every step, of which five are dead, and a read-out of the last step."""

    def __init__(self, layer: nn.Module, lengths: list[int] | None = None) -> None:
        super().__init__()
        self.recurrent, self.layer, self.relu, self.read_out = RNN(1, 3), layer, nn.ReLU(), nn.Linear(10, 3)
        self.lengths = lengths
        with torch.no_grad():
            self.layer.weight[:5], self.layer.weight[5:] = 0, 1  # type: ignore[index,operator]
            self.layer.bias[:5], self.layer.bias[5:] = -1, 1  # type: ignore[index,operator]

    def forward(self, x: Tensor) -> Tensor:
        if self.lengths is not None:
            self.recurrent(x, lengths=self.lengths[: len(x)])
        if isinstance(self.layer, nn.Conv1d):
            return self.read_out(self.relu(self.layer(x.mT))[..., -1])
        return self.read_out(self.relu(self.layer(x))[:, -1])


@pytest.mark.parametrize("layer", [nn.Linear(1, 10), nn.Conv1d(1, 10, 1)])
@pytest.mark.parametrize("num_steps", [10, 6])
def test_units_of_every_step_are_told_from_steps(tmp_path: Path, layer: nn.Module, num_steps: int) -> None:
    found = measured(Saturation(), Steps(layer), torch.rand(4, num_steps, 1), tmp_path)
    assert found["saturation/val/net.relu/dead"] == found["saturation/val/net.relu"] == 0.5


def test_steps_behind_the_length_of_a_sequence_do_not_count(tmp_path: Path) -> None:
    x = torch.cat([torch.rand(2, 3, 1), torch.full((2, 5, 1), -9.0)], 1)  # the other five are dead there
    found = measured(Saturation(), Steps(nn.Linear(1, 10), [3, 3]), x, tmp_path)
    assert found["saturation/val/net.relu/dead"] == found["saturation/val/net.relu"] == 0.5
    assert "saturation/val/net.recurrent.l0" in found


@pytest.mark.parametrize("body", ["lstm", "transformer"])
def test_padding_does_not_count(tmp_path: Path, body: str) -> None:
    tokens = torch.randint(1, 7, (6, 5), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.cat([tokens, tokens.new_zeros(6, 4)], 1), tokens.new_zeros(2, 9)])
    net = seeded(lambda: TextClassifier(7, 3, body=body, dim=4)).float()  # type: ignore[arg-type]
    found = [measured(Saturation(threshold=0.3), net, x, tmp_path) for x in (tokens, padded)]
    assert found[0]
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert any(0 < value < 1 for value in found[0].values())


class Packed(nn.Module):
    """Packs its sequences, and unpacks what it has read of them, to as many steps as there were."""

    def __init__(self, body: nn.Module, *, padding_idx: int | None, batch_first: bool) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(7, 4, padding_idx=padding_idx), body
        self.layer, self.tanh, self.read_out = nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)
        self.batch_first = batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        x, lengths = self.embedding(tokens), (tokens != 0).sum(1)
        x = x if self.batch_first else x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.body(packed)[0], self.batch_first, total_length=tokens.shape[1])
        return self.read_out(self.tanh(3 * self.layer(read)).mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("padding_idx", [0, None])
@pytest.mark.parametrize(
    ("kind", "batch_first"), [(GRU, True), (LSTM, True), (nn.GRU, True), (nn.LSTM, True), (nn.LSTM, False)]
)
def test_the_padding_of_what_is_packed_does_not_count(
    tmp_path: Path, kind: type[nn.Module], batch_first: bool, padding_idx: int | None
) -> None:
    tokens = torch.randint(1, 7, (6, 9), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((3, 7, 1, 5, 8, 2)):  # no batch of 2 has a text of all 9
        tokens[row, length:] = 0
    body = seeded(lambda: kind(4, 3, batch_first=batch_first)).float()
    net = seeded(lambda: Packed(body, padding_idx=padding_idx, batch_first=batch_first)).float()
    found = measured(Saturation(threshold=0.3), net, tokens, tmp_path)
    values = []
    for row in tokens:  # each by itself, without padding
        x = net.embedding(row[row != 0])[None] if batch_first else net.embedding(row[row != 0])[:, None]
        values.append(torch.tanh(3 * net.layer(body(x)[0])).flatten(0, 1))
    flat = torch.cat(values).abs() > 0.3
    assert found["saturation/val/net.tanh"] == pytest.approx(float(flat.float().mean()), rel=1e-6)
    assert found["saturation/val/net.tanh/dead"] == pytest.approx(float(flat.all(0).float().mean()), rel=1e-6)


@pytest.mark.parametrize("lengths", [(4, 2), (3, 1)])
def test_what_was_packed_says_nothing_of_more_steps_than_a_net_has_read_since(lengths: tuple[int, int]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = GRU(2, 2), GRU(2, 2)

        def forward(self, x: Tensor) -> None:
            self.first(pack_padded_sequence(x, (4, 2), batch_first=True))
            seen.append(watch.of(torch.zeros(2, 6, 3)))
            self.second(x, lengths=lengths)
            seen.append(watch.of(torch.zeros(2, 6, 3)))

    seen: list[Tensor | None] = []
    net = Twice()
    watch = RealSteps(net)
    net(torch.zeros(2, 5, 2))
    assert seen[0] is not None
    assert seen[0].sum(1).tolist() == [4, 2]
    assert seen[1] is None


class TimeFirst(nn.Module):
    """Looks its tokens up time first, and reads them batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.body, self.tanh, self.read_out = GRU(4, 3), nn.Tanh(), nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens.T).transpose(0, 1)
        return self.read_out(self.tanh(3 * self.body(x)[0]).mean(1))


@pytest.mark.parametrize("num_steps", [5, 2])  # two as there are texts in a batch
def test_padding_does_not_count_where_tokens_are_looked_up_time_first(tmp_path: Path, num_steps: int) -> None:
    tokens = torch.randint(1, 7, (6, num_steps), generator=torch.Generator().manual_seed(0))
    tokens[::2, num_steps // 2 :] = tokens[1, 1:] = 0
    net = seeded(TimeFirst).float()
    found = measured(Saturation(threshold=0.3), net, tokens, tmp_path)
    values = torch.tanh(3 * net.body(net.embedding(tokens))[0])[tokens != 0]
    assert found["saturation/val/net.tanh"] == pytest.approx(float((values.abs() > 0.3).float().mean()), rel=1e-6)


class BothWays(nn.Module):
    """Reads its texts forwards, and from their end, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.forwards, self.backwards, self.after = GRU(4, 3), GRU(4, 3), GRU(6, 3)
        self.read_out = nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        both = torch.cat([self.forwards(x)[0], self.backwards(x.flip(1))[0].flip(1)], 2)
        return self.read_out(self.after(both)[0].mean(1))


def test_padding_stands_in_front_where_texts_are_read_from_their_end(tmp_path: Path) -> None:
    tokens = torch.randint(1, 7, (6, 5), generator=torch.Generator().manual_seed(0))
    tokens[::2, 3:] = tokens[1, 1:] = 0
    net = seeded(BothWays).float()
    found = measured(Saturation(threshold=0.3), net, tokens, tmp_path)
    real, vectors = tokens != 0, net.embedding(tokens)
    both = torch.cat([net.forwards(vectors)[0], net.backwards(vectors.flip(1))[0].flip(1)], 2)
    for name, x, mask in (
        ("forwards", vectors, real),
        ("backwards", vectors.flip(1), real.flip(1)),
        ("after", both, real),
    ):
        values = gates_of(getattr(net, name), x)["l0.n"][1][mask]
        expected = (values.abs() > 0.3).float().mean()
        assert found[f"saturation/val/net.{name}.l0.n"] == pytest.approx(float(expected), rel=1e-5)
