"""Every attack on tokens through every property, and the threats and searches against closed forms and brute force."""

from __future__ import annotations

import copy
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    Attack,
    CrossEntropy,
    EmbeddingBall,
    HotFlip,
    Margin,
    RandomFlips,
    RandomNoise,
    SampleRng,
    Targeted,
    TokenFlips,
    Untargeted,
    evaluate,
)
from touchstone.nets import TextClassifier

from .oracles import own_labels
from .tokens_table import LENGTH, NUM_TOKENS, TOKEN_ATTACKS, Bag, text_net, texts

NUM_SAMPLES = 24

every_attack = pytest.mark.parametrize("attack", TOKEN_ATTACKS.values(), ids=TOKEN_ATTACKS.keys())


@pytest.fixture
def x() -> Tensor:
    return texts(NUM_SAMPLES)


@every_attack
def test_stays_inside_the_threat_and_off_what_is_protected(attack: Attack, x: Tensor) -> None:
    net = text_net()
    x_adv = attack(net, x, own_labels(net, x))
    kept = (x == 0) | (x == 5)
    if isinstance(attack.threat, TokenFlips):
        changed = x_adv != x
        assert x_adv.dtype == torch.int64
        assert (changed.sum(1) <= 2).all()
        drawn_once = isinstance(attack, RandomFlips) and attack.num_candidates == 1  # and worse than none, for some
        assert changed.any(1).float().mean() > 0.5 if drawn_once else changed.any(1).all()
        assert not (changed & (kept | (x_adv == 0) | (x_adv == 5))).any()
        assert ((x_adv >= 0) & (x_adv < NUM_TOKENS)).all()
    else:
        vectors = net.embedding.weight[x]
        moved = (x_adv - vectors).norm(dim=2)
        assert (moved <= 0.5 + 1e-5).all()
        assert torch.equal(x_adv[kept], vectors[kept])
        assert (moved[~kept] > 0).any()


@every_attack
def test_verdict_alone_equals_verdict_in_any_batch_order_and_split(attack: Attack) -> None:
    net, x = text_net(dtype=torch.float64), texts(NUM_SAMPLES)
    y, ids = own_labels(net, x), torch.arange(100, 100 + NUM_SAMPLES)

    def robust(rows: Tensor, **options: Any) -> Tensor:
        report = evaluate(net, x[rows], y[rows], {"a": attack}, sample_ids=ids[rows], probe_masking=False, **options)
        return report.robust["a"]

    whole = robust(torch.arange(NUM_SAMPLES))
    assert torch.equal(torch.cat([robust(torch.tensor([i])) for i in range(NUM_SAMPLES)]), whole)
    order = torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(1))
    assert torch.equal(robust(order, batch_size=7), whole[order])


@every_attack
def test_tokens_of_32_bits_are_attacked_as_those_of_64(attack: Attack, x: Tensor) -> None:
    net = text_net()
    y = own_labels(net, x)
    expected, got = (evaluate(net, tokens, y, {"a": attack}).robust["a"] for tokens in (x, x.int()))
    assert torch.equal(got, expected)


@every_attack
def test_is_deterministic_by_seed(attack: Attack, x: Tensor) -> None:
    net = text_net()
    y = own_labels(net, x)
    first = attack(net, x, y, SampleRng.numbered(NUM_SAMPLES, seed=3))
    torch.manual_seed(99)
    assert torch.equal(attack(net, x, y, SampleRng.numbered(NUM_SAMPLES, seed=3)), first)


@every_attack
def test_leaves_input_model_and_random_state_untouched(attack: Attack, x: Tensor) -> None:
    net = text_net().train()
    y, before, x_before = own_labels(net, x), copy.deepcopy(net.state_dict()), x.clone()
    state = torch.get_rng_state()
    evaluate(net, x, y, {"a": attack})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(x, x_before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@every_attack
def test_success_is_what_the_model_says_of_what_was_returned(attack: Attack, x: Tensor) -> None:
    net = text_net()
    y = own_labels(net, x)
    report = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    x_adv = report.x_adv["a"]
    with torch.no_grad():
        if x_adv.is_floating_point():  # the net written out, from its embedding on
            states, _ = net.recurrent(x_adv)
            real = (x != 0)[..., None]
            after = net.read_out((net.norm(states) * real).sum(1) / real.sum(1)).argmax(1)
        else:
            after = net(x_adv).argmax(1)
    assert torch.equal(report.robust["a"], after == y)
    if isinstance(attack.objective, Targeted) and attack.objective.target == 2:
        assert torch.equal(report.success["a"], (after == 2) & (y != 2))
        assert report.success["a"].any()
    elif isinstance(attack.objective, Untargeted):
        assert torch.equal(report.success["a"], after != y)


@every_attack
def test_turns_at_least_as_many_as_the_control(attack: Attack, x: Tensor) -> None:
    net = text_net()
    y = own_labels(net, x)
    report = evaluate(
        net, x, y, {"attack": attack, "control": RandomNoise(threat=attack.threat, objective=attack.objective)}
    )
    assert report.success["attack"].sum() >= report.success["control"].sum()


@every_attack
def test_the_cost_is_what_a_hook_on_the_model_counts(attack: Attack, x: Tensor) -> None:
    net, forwards, backwards = text_net(), [], []
    y = own_labels(net, x)

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        forwards.append(len(args[0]))
        if output.requires_grad:
            output.register_hook(lambda grad: backwards.append(len(grad)))

    handle = net.register_forward_hook(count)
    report = evaluate(net, x, y, {"a": attack})
    handle.remove()
    assert sum(forwards) == report.cost["a"].num_forwards + report.judge_cost.num_forwards
    assert sum(backwards) == report.cost["a"].num_backwards + report.judge_cost.num_backwards


def test_what_the_judge_asks_of_a_model_for_the_threat_is_no_cost_of_the_attack(x: Tensor) -> None:
    net, threat = text_net(), EmbeddingBall(eps=0.5)
    y, few = own_labels(net, x), 3
    attacks = {"noise": RandomNoise(threat=threat), "steps": PGD(threat=threat, num_steps=few, early_stop=False)}
    report = evaluate(net, x, y, attacks, probe_masking=False)
    assert report.cost["noise"].num_forwards == 0
    assert report.cost["steps"].num_forwards == report.cost["steps"].num_backwards == few * len(x)
    # Before, after each attack, and for each two to ask whether the model reads more than its embedding.
    assert report.judge_cost.num_forwards == (1 + 2 + 2 * 2) * len(x)


@every_attack
def test_an_empty_batch_gives_an_empty_report(attack: Attack, x: Tensor) -> None:
    report = evaluate(text_net(), x[:0], torch.zeros(0, dtype=torch.int64), {"a": attack})
    assert report.robust["a"].shape == report.worst_case.shape == (0,)


# Against closed forms and brute force.


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


# Which tokens may change.


@pytest.mark.parametrize("body", ["gru", "transformer"])
def test_padding_stays_padding_at_the_embedding(body: str) -> None:
    net, x = text_net(body, torch.float64), texts(NUM_SAMPLES)
    longer = torch.cat([x, torch.zeros(NUM_SAMPLES, 3, dtype=torch.int64)], 1)
    y, attack = own_labels(net, x), PGD(threat=EmbeddingBall(eps=0.3), random_start=False)
    x_adv, same = attack(net, longer, y), attack(net, x, y)
    assert torch.equal(x_adv[longer == 0], torch.zeros_like(x_adv[longer == 0]))
    assert torch.allclose(x_adv[:, :LENGTH], same, atol=1e-9)


@pytest.mark.parametrize("name", ["hot flip", "random flips", "noise", "pgd"])
def test_a_mask_of_each_sample_is_cut_with_the_batch(name: str) -> None:
    net, x = text_net(), texts(NUM_SAMPLES)
    mask = torch.rand(NUM_SAMPLES, LENGTH, generator=torch.Generator().manual_seed(5)) < 0.5
    attack = TOKEN_ATTACKS[name]
    threat = type(attack.threat)(**{**vars(attack.threat), "mask": mask})
    report = evaluate(net, x, own_labels(net, x), {"a": attack.inside(threat)}, batch_size=5, keep_adversarial=True)
    x_adv = report.x_adv["a"]
    before = net.embedding.weight[x].detach() if x_adv.is_floating_point() else x
    changed = (x_adv != before).reshape(NUM_SAMPLES, LENGTH, -1).any(2)
    assert changed.any()
    assert not changed[~mask].any()
    one = type(attack.threat)(**{**vars(attack.threat), "mask": mask[:1]})
    x_adv = attack.inside(one)(net, x, own_labels(net, x))
    changed = (x_adv != before).reshape(NUM_SAMPLES, LENGTH, -1).any(2)
    assert not changed[:, ~mask[0]].any()


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
def test_of_a_text_with_fewer_free_tokens_than_the_budget_all_may_change(kind: type[Attack]) -> None:
    net, x = TextClassifier(9, 3, dim=4).eval(), torch.tensor([[3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    y = own_labels(net, x)
    attack = kind(threat=TokenFlips(5, vocab_size=9, protected=(0,)))
    report = evaluate(net, x, y, {"a": attack, "noise": RandomNoise(threat=attack.threat)}, keep_adversarial=True)
    changed = report.x_adv["a"] != x
    assert not changed[0, 2:].any()
    assert (report.x_adv["noise"] != x).sum(1).tolist() == [2, 5]


def test_random_flips_are_drawn_evenly_from_what_may_be_written() -> None:
    threat, x = TokenFlips(1, vocab_size=5, protected=(3,)), torch.full((6000, 1), 1)
    counts = threat.start(x, SampleRng.numbered(6000)).flatten().bincount(minlength=5)
    assert counts[1] == counts[3] == 0
    assert all(abs(int(count) - 2000) < 150 for count in counts[[0, 2, 4]])


def test_a_projection_keeps_the_first_flips_that_are_allowed() -> None:
    threat = TokenFlips(2, vocab_size=9, protected=(0,))
    x, x_adv = torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([[5, 0, 6, 7, 8]])
    assert threat.project(x_adv, x).tolist() == [[0, 1, 6, 7, 4]]
    assert threat.distance(x_adv, x).tolist() == [float("inf")]
    assert threat.distance(threat.project(x_adv, x), x).tolist() == [2]
