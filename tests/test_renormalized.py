"""Embeddings with a `max_norm`, which change their weights in every forward: attacked, and left as they were."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, EmbeddingBall, HotFlip, RandomFlips, TokenFlips, evaluate, frozen_eval

FLIPS = TokenFlips(1, vocab_size=10)


class Net(nn.Module):
    """Classifies texts by the mean of their vectors, which are shortened to length 1."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embedding, self.read_out = nn.Embedding(10, 6, **options), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read_out(self.embedding(tokens).tanh().mean(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    made = Net(max_norm=1.0, norm_type=2.0).eval()
    made.read_out.bias.data *= 0.4
    made.embedding.weight.data *= torch.linspace(0.1, 3, 10)[:, None]  # some are short as they are
    return made


@pytest.mark.parametrize(
    "attack",
    [
        HotFlip(threat=FLIPS, num_candidates=20),
        RandomFlips(threat=FLIPS, num_candidates=20),
        PGD(threat=EmbeddingBall(eps=0.2), num_steps=5),
    ],
    ids=["hot flip", "random flips", "ball"],
)
def test_verdicts_are_those_of_a_net_whose_vectors_are_short_and_weights_stay(net: Net, attack: Any) -> None:
    x = torch.randint(1, 5, (30, 5))
    short = Net().eval()
    short.load_state_dict(net.state_dict())
    vectors = short.embedding.weight.data
    vectors /= vectors.norm(dim=1, keepdim=True).clamp(min=1)
    y, before = short(x).argmax(1), copy.deepcopy(net.state_dict())
    found, expected = (evaluate(model, x, y, {"a": attack}).robust["a"] for model in (net, short))
    assert torch.equal(found, expected)
    assert 0 < found.sum() < 30
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.embedding.max_norm == 1


def test_gradients_of_weights_are_those_behind_torchs_own_look_up(net: Net) -> None:
    x, again = torch.arange(10)[None], copy.deepcopy(net)
    with frozen_eval(net, freeze=False):
        (found,) = torch.autograd.grad(net(x).logsumexp(1).sum(), net.embedding.weight)
    (expected,) = torch.autograd.grad(again(x).logsumexp(1).sum(), again.embedding.weight)
    torch.testing.assert_close(found, expected)


def test_a_read_out_that_shares_the_table_says_what_the_model_alone_says(net: Net) -> None:
    """It sees shortened vectors of the tokens that were looked up, and of no others."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = net.embedding

        def forward(self, tokens: Tensor) -> Tensor:
            return self.embedding(input=tokens).tanh().mean(1) @ self.embedding.weight.T

    tied, x = Tied(), torch.randint(0, 10, (12, 4))
    alone = torch.cat([copy.deepcopy(tied)(text[None]) for text in x])
    with frozen_eval(tied):
        found = torch.cat([tied(text[None]) for text in x])
    assert torch.equal(found, alone)


def test_weights_that_are_computed_for_each_forward_are_shortened_as_ever(net: Net) -> None:
    parametrized = nn.utils.parametrizations.weight_norm(net.embedding)
    with frozen_eval(parametrized):
        assert float(parametrized(torch.arange(10)).norm(dim=1).max()) == pytest.approx(1)


def test_what_a_broken_forward_has_shortened_comes_back(net: Net) -> None:
    """Also of a table that two share."""
    other = nn.EmbeddingBag(10, 6, max_norm=0.5, norm_type=1.0)
    other.weight = net.embedding.weight
    weight, storage = net.embedding.weight.detach().clone(), net.embedding.weight.data_ptr()
    both = nn.Sequential(other, net)
    with pytest.raises(IndexError, match="out of"), frozen_eval(both):
        both(torch.arange(11)[None])
    assert torch.equal(net.embedding.weight, weight)
    assert net.embedding.weight.data_ptr() == storage
