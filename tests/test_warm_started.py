"""`WarmStarted`: what a perturbation that is known already adds to an attack, and what it costs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    EAD,
    FGSM,
    L1,
    L2,
    PGD,
    Attack,
    AutoAttack,
    InBfloat16,
    Linf,
    RandomNoise,
    SampleRng,
    Strongest,
    Targeted,
    Threat,
    Universal,
    evaluate,
)
from touchstone.attacks import WarmStarted as Warm

from .oracles import LinearModel, images, own_labels, small_net

LINF = Linf(eps=0.06)
N = 60


@pytest.fixture
def net() -> nn.Module:
    return small_net(dtype=torch.float64).eval()


@pytest.fixture
def x() -> Tensor:
    return images(N, dtype=torch.float64)


@pytest.fixture
def y(net: nn.Module, x: Tensor) -> Tensor:
    return own_labels(net, x)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=LINF, num_steps=3),
        PGD(threat=L2(eps=0.3), num_steps=3, num_restarts=2),
        PGD(threat=LINF, num_steps=3, objective=Targeted(target="random")),
        RandomNoise(threat=LINF),
    ],
    ids=["linf", "l2", "targeted", "noise"],
)
def test_warm_turns_what_cold_turns_and_more_and_is_cold_on_the_rest(
    attack: Attack, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    """The kept points come from another attack on other weights: some turn a sample, and some do not."""
    earlier = copy.deepcopy(net)
    with torch.no_grad():
        earlier[5].weight += 0.05 * torch.randn(4, 288, generator=torch.Generator().manual_seed(1))
    change = PGD(threat=LINF, objective=attack.objective)(earlier, x, y) - x
    warm = Warm(attack=attack, perturbation=change)
    report = evaluate(net, x, y, {"cold": attack, "warm": warm}, keep_adversarial=True, batch_size=16)
    cold_robust, warm_robust = report.robust["cold"], report.robust["warm"]
    assert not (warm_robust & ~cold_robust).any()
    assert not (report.success["cold"] & ~report.success["warm"]).any()
    tried = attack.threat.project(x + change, x)
    with torch.no_grad():
        objective = attack.objective.aim(lambda: net(x), y, SampleRng.numbered(N))
        turned = objective.reached(net(tried), y)
    assert 3 < turned.sum() < N - 3
    assert torch.equal(report.x_adv["warm"][turned], tried[turned])
    assert torch.allclose(report.x_adv["warm"][~turned], report.x_adv["cold"][~turned], rtol=0, atol=1e-12)


def test_a_trial_costs_a_forward_and_saves_the_attack(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = PGD(threat=LINF, num_steps=20, early_stop=False)
    cold = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    warm = evaluate(net, x, y, {"a": Warm(attack=attack, perturbation=cold.x_adv["a"] - x)})
    num_fallen = int(cold.success["a"].sum())
    assert 10 < num_fallen < N - 10
    assert torch.equal(warm.robust["a"], cold.robust["a"])
    assert warm.cost["a"].num_forwards == N + 20 * (N - num_fallen)
    assert warm.cost["a"].num_backwards == 20 * (N - num_fallen)


class Wavering(nn.Module):
    """Right on average, and wrong in every third draw."""

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1).sum(1) * 1e-6 + 0.5 + torch.randn(len(x), dtype=x.dtype)
        return torch.stack([margin, -margin], 1)


def test_a_lucky_draw_of_a_model_that_draws_keeps_no_attack_from_a_sample() -> None:
    x, y = images(40), torch.zeros(40, dtype=torch.int64)
    once = PGD(threat=LINF, num_steps=1, random_start=False)
    change = torch.full_like(x, 0.01)
    turned = [
        (Warm(attack=attack, perturbation=change)(Wavering(), x, y) == LINF.project(x + change, x)).flatten(1).all(1)
        for attack in (once, replace(once, num_eot_samples=100))
    ]
    assert 4 < turned[0].sum() < 24
    assert not turned[1].any()


EOT_7 = PGD(threat=LINF, num_steps=1, num_eot_samples=7)


@pytest.mark.parametrize(
    ("attack", "num_draws"),
    [
        (EOT_7, 7),
        (InBfloat16(attack=EOT_7), 7),
        (Warm(attack=EOT_7, perturbation=torch.zeros(1, 1, 6, 6)), 7),
        (AutoAttack(threat=LINF, version="rand"), 20),
        (AutoAttack(threat=LINF), 1),
    ],
    ids=["pgd", "bfloat16", "warm", "autoattack rand", "autoattack"],
)
def test_a_trial_draws_as_often_as_the_attack_that_is_run_does(
    net: nn.Module, x: Tensor, y: Tensor, attack: Attack, num_draws: int
) -> None:
    found = evaluate(net, x, y, {"a": Strongest(threat=LINF)}, keep_adversarial=True)
    fallen = found.success["a"]
    x, y, change = x[fallen], y[fallen], (found.x_adv["a"] - x)[fallen]
    report = evaluate(net, x, y, {"a": Warm(attack=attack, perturbation=change)})
    assert not report.robust["a"].any()
    assert report.cost["a"].num_forwards == num_draws * len(x)


def test_nothing_is_tried_where_nothing_is_known(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = FGSM(threat=LINF)
    change = torch.zeros_like(x)
    change[: N // 3] = 0.01
    cost = evaluate(net, x, y, {"a": Warm(attack=attack, perturbation=change)}).cost["a"]
    assert cost.num_forwards == cost.num_backwards + N // 3


def test_a_change_that_is_too_large_is_projected(x: Tensor) -> None:
    """On a linear model the largest change against the gradient is the worst case: nothing is left to attack."""
    model = LinearModel(36, 2)
    y = own_labels(model, x)
    towards = model.linear.weight.detach()[1 - y] - model.linear.weight.detach()[y]
    warm = Warm(attack=PGD(threat=Linf(eps=0.01), num_steps=20), perturbation=1e3 * towards.reshape(x.shape))
    report = evaluate(model, x, y, {"warm": warm, "cold": warm.attack}, keep_adversarial=True)
    assert torch.equal(report.robust["warm"], report.robust["cold"])
    assert (report.x_adv["warm"] - x).abs().max() <= 0.01 + 1e-12
    assert report.cost["warm"].num_backwards == 20 * int(report.robust["cold"].sum())


@dataclass(frozen=True, kw_only=True)
class Pooling(Attack):
    """Adds the mean over the batch."""

    threat: Threat
    pools = True

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        return self.threat.project(x + (0.5 - x).mean(0, keepdim=True), x)


def test_an_attack_that_pools_still_sees_all_samples(net: nn.Module, x: Tensor, y: Tensor) -> None:
    change = PGD(threat=LINF)(net, x, y) - x
    warm = Warm(attack=Pooling(threat=LINF), perturbation=change)
    report = evaluate(net, x, y, {"cold": warm.attack, "warm": warm}, keep_adversarial=True, batch_size=16)
    stood = ~report.success["warm"]
    assert 0 < stood.sum() < N
    assert torch.equal(report.x_adv["warm"][stood], report.x_adv["cold"][stood])


def test_it_is_to_the_judge_what_its_attack_is() -> None:
    attacks = FGSM(threat=LINF), RandomNoise(threat=L2(eps=1)), Pooling(threat=LINF), EAD(threat=L1(eps=1))
    for attack in (*attacks, Strongest(threat=LINF)):
        warm = Warm(attack=attack, perturbation=torch.zeros(1, 1, 6, 6))
        for name in (
            "threat",
            "objective",
            "kind",
            "pools",
            "flat_when_reached",
            "climbs_several_losses",
            "begins_at_the_sample",
        ):
            assert getattr(warm, name) == getattr(attack, name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attack": Universal(threat=LINF)},
            r"WarmStarted\(attack=...\) must be an attack that needs no samples, got U",
        ),
        ({"attack": LINF}, r"WarmStarted\(attack=...\) must be an attack such as PGD\(...\), got Linf"),
        ({"perturbation": None}, r"\(perturbation=...\) must be a tensor of finite floats, got NoneType"),
        ({"perturbation": torch.ones(1, 4, dtype=torch.int64)}, "finite floats, got torch.int64"),
        ({"perturbation": torch.full((1, 4), torch.nan)}, "finite floats, got torch.float32, not all of it finite"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Warm(**{"attack": FGSM(threat=LINF), "perturbation": torch.zeros(1, 4), **options})


def test_perturbations_of_other_samples_are_refused(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be shaped like the samples, \(60, 1, 6, 6\), got \(60, 1, 5, 5\)"):
        evaluate(net, x, y, {"a": Warm(attack=FGSM(threat=LINF), perturbation=torch.zeros(N, 1, 5, 5))})
    with pytest.raises(ValueError, match=r"WarmStarted\(perturbation=...\) must hold one row per sample \(60\)"):
        evaluate(net, x, y, {"a": Warm(attack=FGSM(threat=LINF), perturbation=torch.zeros(59, 1, 6, 6))})
