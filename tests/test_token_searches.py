"""Searches for flips and balls at the embedding, against closed forms and brute force."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    CrossEntropy,
    EmbeddingBall,
    HotFlip,
    Margin,
    RandomFlips,
    TokenFlips,
    Untargeted,
    evaluate,
)

from .oracles import own_labels
from .tokens_table import LENGTH, NUM_TOKENS, Bag, text_net, texts


def test_balls_at_the_embedding_give_the_verdicts_of_the_closed_form() -> None:
    """Behind the embedding the net is linear: the margin to class j falls by eps times the sum of token-wise norms."""
    net, x, eps = Bag(), torch.randint(NUM_TOKENS, (60, LENGTH), generator=torch.Generator().manual_seed(0)), 0.3
    logits, weight = net(x).detach(), net.linear.weight.detach().unflatten(1, (LENGTH, 4))
    y = logits.argmax(1)
    falls = eps * (weight[y][:, None] - weight[None]).norm(dim=3).sum(2)
    expected = (logits.gather(1, y[:, None]) - logits - falls > 0).scatter(1, y[:, None], True).all(1)
    attack = PGD(threat=EmbeddingBall(eps=eps), objective=Untargeted(loss=Margin()), num_restarts=3)
    assert 10 < int(expected.sum()) < 50
    assert torch.equal(evaluate(net, x, y, {"pgd": attack}).robust["pgd"], expected)


def flipped(text: Tensor, num_flips: int) -> Tensor:
    """Every text with so many other tokens."""
    found = []
    for places in combinations(range(LENGTH), num_flips):
        for tokens in product(range(NUM_TOKENS), repeat=num_flips):
            other = text.clone()
            other[list(places)] = torch.tensor(tokens)
            found.append(other)
    return torch.stack(found)


def test_where_the_score_is_exact_one_candidate_is_as_good_as_brute_force() -> None:
    """Of two classes the margin is a sum over tokens, so that the best flips are best one by one."""
    net, x = Bag(num_classes=2), torch.randint(NUM_TOKENS, (20, LENGTH), generator=torch.Generator().manual_seed(0))
    net.linear.bias.data[0] += 2.3  # so that some texts stand
    with torch.no_grad():
        y = net(x).argmax(1)
        signs = 1 - 2 * y
        margins = [signs[i] * (net(flipped(x[i], 2)) @ torch.tensor([1.0, -1.0]).double()) for i in range(20)]
        expected = torch.stack([margin.min() > 0 for margin in margins])
    attack = HotFlip(threat=TokenFlips(2, vocab_size=NUM_TOKENS), objective=Untargeted(loss=Margin()), num_candidates=1)
    report = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    assert 0 < int(expected.sum()) < 20
    assert torch.equal(report.robust["a"], expected)
    standing = report.robust["a"].nonzero()[:, 0].tolist()
    with torch.no_grad():
        left = -Margin()(net(report.x_adv["a"]), y)
    assert all(float(left[i]) == pytest.approx(float(margins[i].min())) for i in standing)


def test_with_every_flip_as_a_candidate_one_flip_is_exhaustive() -> None:
    net, x = text_net(dtype=torch.float64), texts(20, seed=2)
    net.read_out.bias.data[0] += 0.9  # so that some texts stand
    with torch.no_grad():
        y = net(x).argmax(1)
        expected = torch.stack([(net(flipped(x[i], 1)).argmax(1) == y[i]).all() for i in range(20)])
    attack = HotFlip(threat=TokenFlips(1, vocab_size=NUM_TOKENS), num_candidates=LENGTH * NUM_TOKENS)
    assert 0 < int(expected.sum()) < 20
    assert torch.equal(evaluate(net, x, y, {"a": attack}).robust["a"], expected)


@pytest.mark.parametrize("num_candidates", [1, 7, 100])
def test_all_candidates_are_flips_that_there_are_and_no_other_forward_is_paid(num_candidates: int) -> None:
    """In three texts one token may change, into 17 others; in the fourth each of the six."""
    net, x = Bag(), torch.randint(1, NUM_TOKENS, (4, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, LENGTH, dtype=torch.bool)
    mask[:3, 2] = mask[3] = True
    net.linear.bias.data[0] += 100  # so that all texts stand
    y, threat = torch.zeros(4, dtype=torch.int64), TokenFlips(1, vocab_size=NUM_TOKENS, protected=(0,), mask=mask)
    attack = HotFlip(threat=threat, objective=Untargeted(loss=Margin()), num_candidates=num_candidates)
    report = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    num_verified = 3 * min(num_candidates, 17) + min(num_candidates, 6 * 17)
    assert report.cost["a"].num_forwards == 4 + num_verified  # and one with a gradient
    if num_candidates < 17:
        return
    with torch.no_grad():
        for text, found in zip(x[:3], report.x_adv["a"], strict=False):
            others = text.repeat(NUM_TOKENS - 1, 1)
            others[:, 2] = torch.arange(1, NUM_TOKENS)
            assert (-Margin()(net(found[None]), y[:1])).item() == pytest.approx(
                float((-Margin()(net(others), y[:1].expand(len(others)))).min())
            )


def test_a_beam_finds_no_less_than_the_greedy_search_and_gradients_more_than_chance() -> None:
    net, x = text_net(), texts(200, seed=3)
    y, threat = own_labels(net, x), TokenFlips(2, vocab_size=NUM_TOKENS, protected=(0,))
    report = evaluate(
        net,
        x,
        y,
        {
            "random": RandomFlips(threat=threat, num_candidates=2),
            "greedy": HotFlip(threat=threat, num_candidates=2),
            "beam": HotFlip(threat=threat, num_candidates=2, num_beams=6),
        },
    )
    turned = {name: int(success.sum()) for name, success in report.success.items()}
    assert turned["beam"] >= turned["greedy"] > 1.2 * turned["random"]


class Surer(nn.Module):
    """Two classes, and surer of the first with every token that is not 0."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained((torch.arange(9.0) > 0)[:, None].float())
        self.first = first

    def forward(self, tokens: Tensor) -> Tensor:
        logit = self.first + self.embedding(tokens).sum((1, 2))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
@pytest.mark.parametrize("loss", [Margin(), CrossEntropy()])
def test_a_text_of_which_every_flip_is_worse_stays_as_it_is(kind: Any, loss: Any) -> None:
    x, y = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    attack = kind(threat=TokenFlips(2, vocab_size=9), objective=Untargeted(loss=loss))
    assert torch.equal(attack(Surer(1.0), x, y), x)


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
def test_no_flip_is_tried_of_a_text_that_reaches_the_goal_as_it_is(kind: Any) -> None:
    net, x, y = Surer(-1.0), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    asked: list[int] = []
    net.register_forward_hook(lambda module, args, output: asked.append(len(args[0])))
    assert torch.equal(kind(threat=TokenFlips(2, vocab_size=9))(net, x, y), x)
    assert sum(asked) == 3
