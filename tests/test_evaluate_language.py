"""The judge of language models: figures taken by hand, brute force, and what it refuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    MIFGSM,
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    LanguageReport,
    NextToken,
    RandomFlips,
    RandomNoise,
    Surprise,
    TokenFlips,
    Untargeted,
    evaluate,
    evaluate_language,
)
from touchstone.nets import RecurrentLM, TransformerLM

VOCABULARY, LENGTH = 13, 9
FLIPS, BALL = TokenFlips(2, vocab_size=VOCABULARY, protected=(0,)), EmbeddingBall(eps=0.5)
ATTACKS: dict[str, Attack] = {
    "hot_flip": HotFlip(threat=FLIPS, objective=Surprise()),
    "beam": HotFlip(threat=FLIPS, objective=Surprise(), num_beams=3),
    "random": RandomFlips(threat=FLIPS, objective=Surprise()),
    "noise": RandomNoise(threat=BALL, objective=Surprise()),
    "pgd": PGD(threat=BALL, objective=Surprise(), num_steps=5),
    "pgd_to_the_end": PGD(threat=BALL, objective=Surprise(), num_steps=5, to_the_end=True),
    "mifgsm_to_the_end": MIFGSM(threat=BALL, objective=Surprise(), num_steps=5, to_the_end=True),
    "say_3": HotFlip(threat=FLIPS, objective=NextToken(3)),
    "pgd_say_3": PGD(threat=BALL, objective=NextToken(3), num_steps=5),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def language_net(kind: str = "gru") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind == "transformer":
            net: nn.Module = TransformerLM(VOCABULARY, dim=16, num_heads=2, num_layers=2, context=LENGTH)
        else:
            net = RecurrentLM(VOCABULARY, cell="gru", dim=6, hidden=12)
        with torch.no_grad():
            net.head.weight *= 6  # type: ignore[union-attr,operator]  # so that it is sure of something
    return net.double().eval()


def texts(num_texts: int = 20) -> tuple[Tensor, Tensor]:
    ids = torch.randint(VOCABULARY, (num_texts, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


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


def test_evaluate_refuses_for_texts_what_is_for_images_and_the_other_way_round() -> None:
    net, (x, y) = language_net(), texts(4)
    attack = {"a": ATTACKS["hot_flip"]}
    for options in ({"prepare_on": (x, y)}, {"check_8bit": True}):
        with pytest.raises(ValueError, match=r"evaluate\(prepare_on=..., check_8bit=...\) are for images, got obj"):
            evaluate(net, x, y, attack, **options)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"evaluate_language\(batch_size=...\) must be >= 1, got 0"):
        evaluate(net, x, y, attack, batch_size=0)
    with pytest.raises(ValueError, match=r"evaluate\(characters_per_token=...\) is for language mod.*got labels \(4,"):
        evaluate(net, x, y[:, 0], {}, characters_per_token=1.0)
    with pytest.raises(ValueError, match="attack 'b': Untargeted.* is for classes; a language model is attacked with"):
        evaluate(net, x, y, {**attack, "b": HotFlip(threat=FLIPS)})
    for some in ({}, {"b": HotFlip(threat=FLIPS)}):
        with pytest.raises(ValueError, match=r"labels of one token each, \(4, 9\), are what follows a text: a lang"):
            evaluate(net, x, y, some, sample_ids=[1, 2, 3, 4])


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


# What is refused.


class Classes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3].double()


def test_what_is_no_language_model_or_no_text_is_refused() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"must return logits of shape \(4, tokens, vocabulary\), got \(4, 3\)"):
        evaluate_language(Classes(), x, y, {})
    with pytest.raises(ValueError, match=r"the labels must be the tokens that follow.* not in text 2"):
        evaluate_language(net, x, torch.where(torch.arange(4)[:, None] == 2, (y + 1) % VOCABULARY, y), {})
    with pytest.raises(ValueError, match=r"text 0, whose labels are its own tokens: shift them, `tokens\[:, :-1\]"):
        evaluate_language(net, x, x, {})
    with pytest.raises(ValueError, match=r"text 3 has -100 at place 2, .* cut off what is padding"):
        evaluate_language(net, x, y.index_put((torch.tensor(3), torch.arange(2, y.shape[1])), torch.tensor(-100)), {})
    of_others = nn.Sequential(nn.Embedding(VOCABULARY, VOCABULARY))
    with pytest.raises(
        ValueError, match=r"the model fails on texts with ids from 0 to 20: are they all in its voc.*\(index"
    ):
        evaluate_language(of_others, x.clamp(max=11).where(x < 11, 20), y.clamp(max=11).where(y < 11, 20), {})
    with pytest.raises(ValueError, match="must be whole numbers"):
        evaluate_language(net, x.double(), y[:, 0], {})
    with pytest.raises(ValueError, match="must be a tensor, got list"):
        evaluate_language(net, [[1, 2]], y[:1, :1], {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"evaluate_language\(batch_size=...\) must be >= 1, got 0"):
        evaluate_language(net, x, y, {}, batch_size=0)
    with pytest.raises(ValueError, match=r"evaluate_language\(characters_per_token=...\) must be > 0, got 0"):
        evaluate_language(net, x, y, {}, characters_per_token=0)
    with pytest.raises(ValueError, match="must be a number, or one for each of the 13 tokens of the model, got 5"):
        evaluate_language(net, x, y, {}, characters_per_token=torch.ones(5))
    for table in (torch.ones(13, 1), -torch.ones(13), torch.ones(13) * math.nan):
        with pytest.raises(ValueError, match=r"one for each token of the vocabulary `\(V,\)`, finite and >= 0, got"):
            evaluate_language(net, x, y, {}, characters_per_token=table)


class LooksAhead(nn.Module):
    """Says the next token by looking at it, or some of it."""

    def __init__(self, noise: float = 0.0, scale: float = 3.0) -> None:
        super().__init__()
        self.noise, self.scale = noise, scale

    def forward(self, x: Tensor) -> Tensor:
        logits = self.scale * nn.functional.one_hot(x.roll(-1, 1), VOCABULARY).double()
        return logits + self.noise * torch.rand(logits.shape)


def test_a_model_that_looks_ahead_is_refused() -> None:
    x, y = texts(4)
    with pytest.raises(ValueError, match=r"none of the tokens behind them.* those of the first 4 tokens change"):
        evaluate_language(LooksAhead(), x, y, {})
    block = TransformerLM(VOCABULARY, dim=16, num_heads=2, num_layers=1, context=LENGTH)
    evaluate_language(block, x, y, {})
    block.blocks[0].attention.causal = False  # type: ignore[union-attr]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(block, x, y, {})
    evaluate_language(LooksAhead(noise=1.0), x, y, {})  # what it draws itself would hide it


def test_texts_of_one_token_are_refused_as_such() -> None:
    x, y = texts(4)
    with pytest.raises(ValueError, match=r"both, T >= 2, got torch.int64 \(4, 1\) and \(4, 1\)"):
        evaluate_language(language_net(), x[:, :1], y[:, :1], {})


def test_a_model_that_looks_ahead_is_found_behind_a_text_of_one_token_and_in_the_smallest_logits() -> None:
    x, y = texts(4)
    x[0] = y[0, :-1] = 5
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(LooksAhead(), x, y, {})
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(LooksAhead(scale=1e-5), x, y, {})
    evaluate_language(language_net("transformer").float(), x, y, {})
    evaluate_language(LooksAhead(), x[:1], x[:1], {})  # of which nothing can be said


def test_objectives_for_classes_and_for_texts_are_told_apart() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"attack 'a': Untargeted\(.*is for classes; a language model .* Surprise"):
        evaluate_language(net, x, y, {"a": HotFlip(threat=FLIPS, objective=Untargeted())})
    with pytest.raises(ValueError, match="a language model is measured by `evaluate_language`"):
        evaluate(net, x, y, {})
    with pytest.raises(ValueError, match=r"attack 'a': Surprise\(\) is for language models"):
        evaluate(Classes(), x, y[:, 0] % 3, {"a": HotFlip(threat=FLIPS, objective=Surprise())})


def test_a_target_that_is_no_token_is_refused() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"NextToken\(target=...\) must be a token id >= 0, got -1"):
        NextToken(-1)
    with pytest.raises(ValueError, match=r"NextToken\(target=13\): the model has 13 tokens"):
        evaluate_language(net, x, y, {"a": HotFlip(threat=FLIPS, objective=NextToken(13))})
