"""Every attack on tokens through every property."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    Attack,
    EmbeddingBall,
    RandomFlips,
    RandomNoise,
    SampleRng,
    Targeted,
    TokenFlips,
    Untargeted,
    evaluate,
)

from .oracles import own_labels
from .tokens_table import NUM_TOKENS, TOKEN_ATTACKS, text_net, texts

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
