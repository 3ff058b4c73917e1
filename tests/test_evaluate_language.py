"""The judge of language models: figures taken by hand, brute force, and what it leaves alone."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    HotFlip,
    LanguageReport,
    NextToken,
    RandomFlips,
    Surprise,
    TokenFlips,
    evaluate,
    evaluate_language,
)

from .judged_texts import ATTACKS, LENGTH, VOCABULARY, language_net, texts

every_attack = pytest.mark.parametrize("name", ATTACKS)


def bits_by_hand(logits: Tensor, x: Tensor, x_adv: Tensor, y: Tensor) -> list[float]:
    """Mean bits of each text where the token to be said is what it was, in numpy, token by token."""
    found = []
    for row in range(len(x)):
        bits = []
        for t in range(LENGTH):
            if t + 1 < LENGTH and x_adv[row, t + 1] != x[row, t + 1]:
                continue
            scores = logits[row, t].detach().numpy()
            shifted = scores - scores.max()
            bits.append((np.log(np.exp(shifted).sum()) - shifted[y[row, t]]) / math.log(2))
        found.append(float(np.mean(bits)))
    return found


@pytest.mark.parametrize("kind", ["gru", "transformer"])
@pytest.mark.parametrize("name", ["hot_flip", "random", "say_3"])
def test_bits_are_those_of_the_tokens_that_an_attack_left(kind: str, name: str) -> None:
    net, (x, y) = language_net(kind), texts()
    report = evaluate_language(net, x, y, {name: ATTACKS[name]}, characters_per_token=2, keep_adversarial=True)
    x_adv = report.x_adv[name]
    changed = x_adv != x
    assert report.num_changed[name].tolist() == changed.sum(1).tolist()
    assert not (changed & ((x == 0) | (x_adv == 0))).any()
    assert changed.any()
    assert report.clean.tolist() == pytest.approx([bits / 2 for bits in bits_by_hand(net(x), x, x, y)], rel=1e-5)
    assert report.before[name].tolist() == pytest.approx(
        [bits / 2 for bits in bits_by_hand(net(x), x, x_adv, y)], rel=1e-5
    )
    assert report.after[name].tolist() == pytest.approx(
        [bits / 2 for bits in bits_by_hand(net(x_adv), x, x_adv, y)], rel=1e-5
    )


@pytest.mark.parametrize("name", ["hot_flip", "random", "pgd"])
def test_characters_of_each_text_are_counted_over_the_tokens_that_were_left(name: str) -> None:
    net, (x, y) = language_net(), texts()
    table = torch.tensor([0, 1, 2, 0, 1, 3, 1, 1, 0, 2, 1, 1, 4])
    report = evaluate_language(net, x, y, {name: ATTACKS[name]}, characters_per_token=table, keep_adversarial=True)
    x_adv = report.x_adv[name] if name != "pgd" else x
    for row in range(len(x)):
        left = [t for t in range(LENGTH) if t + 1 == LENGTH or x_adv[row, t + 1] == x[row, t + 1]]
        per_token = sum(int(table[y[row, t]]) for t in left) / len(left)
        assert float(report.before[name][row]) == pytest.approx(
            bits_by_hand(net(x), x, x_adv, y)[row] / per_token, rel=1e-5
        )
        whole = int(table[y[row]].sum()) / LENGTH
        assert float(report.characters_per_token[row]) == pytest.approx(whole)
        assert float(report.clean[row]) == pytest.approx(bits_by_hand(net(x), x, x, y)[row] / whole, rel=1e-5)


@pytest.mark.parametrize("name", ["pgd", "pgd_say_3"])
def test_in_a_ball_at_the_embedding_every_token_is_left_and_measured(name: str) -> None:
    net, (x, y) = language_net(), texts()
    report = evaluate_language(net, x, y, {name: ATTACKS[name]}, keep_adversarial=True)
    x_adv = report.x_adv[name]
    logits = net.head(net.recurrent(x_adv)[0])  # type: ignore[union-attr,operator]
    assert (x_adv - net.embedding.weight[x]).norm(dim=2).amax() <= 0.5 + 1e-9  # type: ignore[union-attr,index]
    assert torch.equal(report.before[name], report.clean)
    assert report.after[name].tolist() == pytest.approx(bits_by_hand(logits, x, x, y), rel=1e-5)


def test_gradients_find_worse_texts_than_chance() -> None:
    net, (x, y) = language_net(), texts(60)
    report = evaluate_language(net, x, y, ATTACKS)
    rise = {name: float((report.after[name] - report.before[name]).mean()) for name in ATTACKS}
    assert rise["beam"] > 0.98 * rise["hot_flip"]
    assert rise["hot_flip"] > rise["random"] > 0
    assert rise["pgd"] > 2 * rise["noise"]
    reached = {name: int(success.sum()) for name, success in report.success.items()}
    assert reached["say_3"] > 0
    assert reached["pgd_say_3"] > 0
    assert reached["hot_flip"] == reached["pgd"] == 0  # Surprise has no end


class SaysOne(nn.Module):
    """Expects 1 behind zeros, and the less so the more other tokens there are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained((torch.arange(VOCABULARY) > 0)[:, None].float())

    def forward(self, tokens: Tensor) -> Tensor:
        sure = 3 - self.embedding(tokens).cumsum(1)
        return sure * nn.functional.one_hot(torch.tensor(1), VOCABULARY)


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
def test_a_text_that_every_flip_makes_less_surprising_stays_as_it_is(kind: Any) -> None:
    x = torch.zeros(3, LENGTH, dtype=torch.int64)
    attack = kind(threat=TokenFlips(2, vocab_size=VOCABULARY), objective=Surprise())
    report = evaluate_language(SaysOne(), x, x, {"a": attack})
    assert not report.num_changed["a"].any()
    assert report.after["a"].tolist() == pytest.approx(report.clean.tolist())


def test_a_token_is_made_likely_wherever_one_flip_can() -> None:
    net, (x, y) = language_net(), texts()
    threat = TokenFlips(1, vocab_size=VOCABULARY)
    attack = HotFlip(threat=threat, objective=NextToken(3), num_candidates=VOCABULARY * LENGTH)
    success = evaluate_language(net, x, y, {"a": attack}).success["a"]
    expected = []
    with torch.no_grad():
        for text, following in zip(x, y, strict=True):
            tried = text.repeat(LENGTH * VOCABULARY, 1)
            places = torch.arange(LENGTH).repeat_interleave(VOCABULARY)
            tried[torch.arange(len(tried)), places] = torch.arange(VOCABULARY).repeat(LENGTH)
            says = net(torch.cat([text[None], tried]))[:, -1].argmax(1) == 3
            expected.append(bool(says[1:].any()) and not says[0] and following[-1] != 3)
    assert success.tolist() == expected
    assert 0 < sum(expected) < 20


@every_attack
def test_figures_do_not_depend_on_the_batch(name: str) -> None:
    net, (x, y), ids = language_net(), texts(), torch.arange(50, 70)
    whole = evaluate_language(net, x, y, {name: ATTACKS[name]}, sample_ids=ids)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    parts = evaluate_language(net, x[order], y[order], {name: ATTACKS[name]}, sample_ids=ids[order], batch_size=3)
    assert torch.allclose(parts.after[name], whole.after[name][order], atol=1e-5)
    assert torch.equal(parts.success[name], whole.success[name][order])
    assert torch.equal(parts.num_changed[name], whole.num_changed[name][order])


class SmallRoom(nn.Module):
    """A language model on a device with room for a few texts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = language_net()
        self.largest = 0

    def forward(self, tokens: Tensor) -> Tensor:
        if len(tokens) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.largest = max(self.largest, len(tokens))
        return self.net(tokens)


@pytest.mark.parametrize("name", ["random", "hot_flip"])
def test_texts_that_do_not_fit_into_memory_are_halved_with_the_same_figures(name: str) -> None:
    x, y = texts(20)
    attack = {name: ATTACKS[name]}
    expected, model = evaluate_language(language_net(), x, y, attack, batch_size=20), SmallRoom().eval()
    with pytest.warns(UserWarning, match="a batch of 20 samples .* going on with") as warned:
        found = evaluate_language(model, x, y, attack, batch_size=20)
    assert len(warned) == 1
    assert 0 < model.largest <= 6
    torch.testing.assert_close(found.after[name], expected.after[name], rtol=0, atol=1e-6)
    assert torch.equal(found.success[name], expected.success[name])
    assert torch.equal(found.num_changed[name], expected.num_changed[name])
    assert found.cost[name].num_backwards == expected.cost[name].num_backwards


@every_attack
def test_leaves_everything_as_it_was_and_counts_the_cost(name: str) -> None:
    net, (x, y) = language_net().train(), texts()
    before, state, x_before = copy.deepcopy(net.state_dict()), torch.get_rng_state(), x.clone()
    forwards: list[int] = []
    handle = net.register_forward_hook(lambda module, args, output: forwards.append(len(args[0])))
    report = evaluate_language(net, x, y, {name: ATTACKS[name]})
    handle.remove()
    assert sum(forwards) == report.cost[name].num_forwards + report.judge_cost.num_forwards
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, x_before)
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@every_attack
def test_evaluate_hands_texts_over(name: str) -> None:
    net, (x, y), attack = language_net(), texts(), {name: ATTACKS[name]}
    ids = torch.arange(50, 70)
    expected = evaluate_language(net, x, y, attack, characters_per_token=2, sample_ids=ids, seed=3)
    report = evaluate(net, x, y, attack, characters_per_token=2, sample_ids=ids, seed=3, keep_adversarial=True)
    assert isinstance(report, LanguageReport)
    for key in ("before", "after", "success", "num_changed"):
        assert torch.equal(getattr(report, key)[name], getattr(expected, key)[name])
    assert report.x_adv[name].shape[:2] == x.shape
    assert report.cost[name].num_forwards == expected.cost[name].num_forwards
    per_token = evaluate(net, x, y, attack, batch_size=7, sample_ids=ids, seed=3)
    torch.testing.assert_close(per_token.after[name], 2 * expected.after[name])
    clean = evaluate(net, x, y, {}, characters_per_token=2).clean
    torch.testing.assert_close(clean, expected.clean)


def test_no_texts_give_an_empty_report() -> None:
    x, y = texts()
    report = evaluate_language(language_net(), x[:0], y[:0], ATTACKS)
    assert report.clean.shape == report.after["pgd"].shape == (0,)
    assert str(report) == "no texts"


def test_a_report_reads_as_lines() -> None:
    net, (x, y) = language_net(), texts()
    report = evaluate_language(net, x, y, {"a": ATTACKS["hot_flip"]})
    assert isinstance(report, LanguageReport)
    first, second = str(report).splitlines()
    assert first == f"clean  {float(report.clean.mean()):.3f} bits per character"
    assert second.startswith(f"a      {float(report.before['a'].mean()):.3f} -> {float(report.after['a'].mean()):.3f}")
