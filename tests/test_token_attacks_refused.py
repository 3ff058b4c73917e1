"""What attacks on texts refuse, and in which words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    RandomFlips,
    RandomNoise,
    SampleRng,
    TokenFlips,
    evaluate,
)
from touchstone.attacks.core.embedding import FromEmbedding

from .oracles import own_labels
from .tokens_table import LENGTH, NUM_TOKENS, text_net, texts


class Counting(nn.Module):
    """Reads more of its tokens than their embedding."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens) + self.scale * (tokens == 7).sum(1, keepdim=True)


def test_a_model_that_reads_more_than_the_embedding_is_refused() -> None:
    x, attack = torch.full((4, LENGTH), 7), PGD(threat=EmbeddingBall(eps=0.1))
    y = torch.zeros(4, dtype=torch.int64)
    net = Counting(text_net())
    net.net.read_out.weight.data[0] += 1  # so that a shift of all logits is seen as one
    with pytest.raises(ValueError, match="the model reads more of its tokens than their embedding"):
        attack(net, x, y)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_one_text_among_many_shows_that_a_model_reads_more_than_the_embedding(scale: float) -> None:
    x, y = torch.full((50, LENGTH), 3), torch.zeros(50, dtype=torch.int64)
    net, attack = text_net(), PGD(threat=EmbeddingBall(eps=0.1), num_steps=1)
    net.read_out.weight.data *= scale
    net.read_out.bias.data = torch.tensor([scale, 0.0, 0.0])
    evaluate(Counting(net, scale), x, y, {"a": attack})
    x[-1, -1] = 7
    with pytest.raises(ValueError, match="the model reads more of its tokens than their embedding"):
        evaluate(Counting(net, scale), x, y, {"a": attack})


def test_a_model_that_draws_random_numbers_is_not_said_to_read_more() -> None:
    class Noisy(Counting):
        def forward(self, tokens: Tensor) -> Tensor:
            logits = self.net(tokens)
            return logits + torch.randn_like(logits)

    net = text_net()
    FromEmbedding(Noisy(net), net.embedding).compare(texts(4))


def test_an_embedding_that_is_called_twice_is_refused() -> None:
    net = text_net()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, tokens: Tensor) -> Tensor:
            return self.net(tokens) + self.net(tokens)

    rest = FromEmbedding(Twice(), net.embedding)
    with pytest.raises(ValueError, match="through the embedding once, it did so 2 times"):
        rest(rest.vectors(texts(2)))


def test_an_unknown_embedding_lists_those_that_are_there() -> None:
    net = nn.ModuleDict({"words": nn.Embedding(3, 2), "places": nn.Embedding(4, 2), "head": nn.Linear(2, 2)})
    x, y = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(
        ValueError,
        match=r"EmbeddingBall\(embedding=...\): there is no embedding 'word'; the model has 'words', 'places'",
    ):
        PGD(threat=EmbeddingBall(eps=1, embedding="word"))(net, x, y)
    with pytest.raises(ValueError, match=r"HotFlip\(embedding=...\): must name one of several embeddings"):
        HotFlip(threat=TokenFlips(1, vocab_size=3)).perturb(net, x, y, SampleRng.numbered(1))
    with pytest.raises(ValueError, match="EmbeddingBall needs a model whose tokens go through an `nn.Embedding`"):
        PGD(threat=EmbeddingBall(eps=1))(nn.Linear(2, 2), x, y)


def test_an_embedding_of_positions_is_none_of_the_vocabulary() -> None:
    """Of 6 places and 19 tokens, whose vectors are no `nn.Embedding`."""

    class OwnTable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.places = nn.Parameter(torch.randn(NUM_TOKENS, 4)), nn.Embedding(6, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            places = self.places(torch.arange(tokens.shape[1]))
            return self.head((self.table[tokens] + places).tanh().sum(1))

    net, x = OwnTable(), texts(3)
    attack = RandomFlips(threat=TokenFlips(1, vocab_size=NUM_TOKENS))
    evaluate(net, x, net(x).argmax(1), {"flips": attack}, probe_masking=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmbeddingBall(eps=0), r"EmbeddingBall\(eps=...\) must be > 0 and finite, got 0"),
        (
            lambda: EmbeddingBall(eps=torch.tensor([0.5, torch.inf])),
            r"EmbeddingBall\(eps=...\) must be > 0 and finite, got inf",
        ),
        (lambda: EmbeddingBall(eps="a"), r"EmbeddingBall\(eps=...\) must be a number"),
        (lambda: EmbeddingBall(eps=1, mask=torch.ones(3)), r"EmbeddingBall\(mask=...\) must be bool"),
        (lambda: TokenFlips(0, vocab_size=5), r"TokenFlips\(num_flips=...\) must be >= 1, got 0"),
        (lambda: TokenFlips(1, vocab_size=1), r"TokenFlips\(vocab_size=...\) must be >= 2, got 1"),
        (
            lambda: TokenFlips(1, vocab_size=5, protected=(5,)),
            r"TokenFlips\(protected=...\) must be ids below 5, got 5",
        ),
        (lambda: TokenFlips(1, vocab_size=3, protected=(0, 1)), "must leave at least two of 3 tokens"),
        (lambda: TokenFlips(1, vocab_size=5, protected=(-1,)), r"must be token ids >= 0, got \(-1,\)"),
        (lambda: HotFlip(threat=EmbeddingBall(eps=1)), r"HotFlip\(threat=...\) must be TokenFlips, got EmbeddingBall"),
        (lambda: HotFlip(threat=TokenFlips(1, vocab_size=5), num_beams=0), r"HotFlip\(num_beams=...\) must be >= 1"),
        (
            lambda: RandomFlips(threat=TokenFlips(1, vocab_size=5), num_candidates=0),
            r"RandomFlips\(num_candidates=...\) must be >= 1, got 0",
        ),
    ],
)
def test_options_outside_their_range_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (HotFlip(threat=TokenFlips(7, vocab_size=NUM_TOKENS)), r"TokenFlips\(num_flips=7\): the texts have only 6"),
        (HotFlip(threat=TokenFlips(1, vocab_size=8)), "ids of the vocabulary, 0 to 7; text 0 has 9 at place 0"),
        *(
            (kind(threat=TokenFlips(1, vocab_size=30)), r"TokenFlips\(vocab_size=30\): the model's embedding has 19")
            for kind in (HotFlip, RandomFlips, RandomNoise)
        ),
        (PGD(threat=TokenFlips(1, vocab_size=NUM_TOKENS)), "cannot be moved along a gradient: attack tokens with Hot"),
        (
            HotFlip(threat=TokenFlips(1, vocab_size=NUM_TOKENS, mask=torch.ones(1, 4, dtype=torch.bool))),
            r"TokenFlips\(mask=...\) must have one column for each of 6 tokens, got \(1, 4\)",
        ),
    ],
)
def test_what_does_not_fit_the_texts_names_the_attack(attack: Attack, message: str) -> None:
    net, x = text_net(), texts(4)
    with pytest.raises(ValueError, match=f"attack 'a': .*{message}"):
        evaluate(net, x, own_labels(net, x), {"a": attack})
