"""Models that read their tokens beside the embedding: a mask, a length, a place to read out at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from touchstone.attacks import Attack, HotFlip, Margin, RandomFlips, TokenFlips, Untargeted, evaluate

from .oracles import own_labels

NUM_TOKENS, LENGTH, PADDING, END = 13, 6, 0, 1


class Masked(nn.Module):
    """The mean over all tokens but padding, of which its embedding knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(NUM_TOKENS, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens != PADDING)[..., None]
        return self.linear((self.embedding(tokens) * real).sum(1) / real.sum(1))


class ReadAtTheEnd(nn.Module):
    """The sum of the tokens up to the one that ends the text."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(NUM_TOKENS, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        sums, ends = self.embedding(tokens).cumsum(1), (tokens == END).int().argmax(1)
        return self.linear(sums[torch.arange(len(tokens)), ends])


class Packed(nn.Module):
    """Reads as many steps as there are tokens that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(NUM_TOKENS, 4), nn.GRU(4, 5, batch_first=True)
        self.linear = nn.Linear(5, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != PADDING).sum(1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.linear(self.gru(packed)[1][0])


class ChangedInPlace(Masked):
    """Masks what its embedding gave in place."""

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens != PADDING)[..., None]
        return self.linear(self.embedding(tokens).mul_(real).sum(1) / real.sum(1))


class LookedUpWithoutGradient(Masked):
    """Of an embedding that is not trained."""

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens != PADDING)[..., None]
        with torch.no_grad():
            vectors = self.embedding(tokens)
        return self.linear((vectors * real).sum(1) / real.sum(1))


@pytest.fixture
def x() -> Tensor:
    """Texts of 3 to 6 tokens, the last of which ends them, with padding behind it."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, NUM_TOKENS, (40, LENGTH), generator=generator)
    last, places = torch.randint(2, LENGTH, (40, 1), generator=generator), torch.arange(LENGTH)
    return torch.where(places == last, END, torch.where(places > last, PADDING, tokens))


def made(kind: type[nn.Module], x: Tensor) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = kind().double().eval()
    with torch.no_grad():
        net.linear.bias -= net(x).mean(0)  # so that it uses both classes
        net.linear.bias[0] += 0.2
    return net


def flipped_once(text: Tensor) -> Tensor:
    """Every text with one other word in place of one of its words."""
    others = [(place, token) for place in range(LENGTH) if text[place] > END for token in range(2, NUM_TOKENS)]
    texts = text.repeat(len(others), 1)
    places, tokens = torch.tensor(others).T
    texts[torch.arange(len(others)), places] = tokens
    return texts


@pytest.mark.parametrize(
    ("kind", "num_candidates"),
    [
        (Masked, 1),
        (ReadAtTheEnd, 1),
        (ChangedInPlace, 1),
        (LookedUpWithoutGradient, 1),
        (Packed, LENGTH * NUM_TOKENS),
    ],
)
def test_hot_flip_finds_the_best_flip_of_the_model_as_it_reads_its_tokens(
    kind: type[nn.Module], num_candidates: int, x: Tensor
) -> None:
    """Where the margin is linear in each vector the best score is the best flip; elsewhere every flip is tried."""
    net = made(kind, x)
    y = own_labels(net, x)
    attack = HotFlip(
        threat=TokenFlips(1, vocab_size=NUM_TOKENS, protected=(PADDING, END)),
        objective=Untargeted(loss=Margin()),
        num_candidates=num_candidates,
    )
    report = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    with torch.no_grad():
        least = torch.stack(
            [-Margin()(net(flips := flipped_once(text)), y[i].expand(len(flips))).max() for i, text in enumerate(x)]
        )
        left = -Margin()(net(report.x_adv["a"]), y)
    assert torch.equal(report.robust["a"], least > 0)
    assert 0 < int(report.robust["a"].sum()) < len(x)
    standing = report.robust["a"]
    assert torch.allclose(left[standing], least[standing].minimum(-Margin()(net(x), y).detach()[standing]))


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
@pytest.mark.parametrize("net", [Masked, ReadAtTheEnd, Packed])
def test_a_text_that_is_wrong_as_it_is_is_left_alone_and_no_other(
    kind: type[Attack], net: type[nn.Module], x: Tensor
) -> None:
    model = made(net, x)
    y = torch.zeros(len(x), dtype=torch.int64)
    attack = kind(threat=TokenFlips(1, vocab_size=NUM_TOKENS, protected=(PADDING, END)))  # type: ignore[call-arg]
    wrong = own_labels(model, x) != y
    changed = (attack(model, x, y) != x).any(1)
    assert 0 < int(wrong.sum()) < len(x)
    assert not changed[wrong].any()
    assert changed[~wrong].float().mean() > 0.5
