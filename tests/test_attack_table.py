"""Every attack through every property."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    FGSM,
    PGD,
    AnyOf,
    Attack,
    Linf,
    RandomNoise,
    Report,
    SampleRng,
    Targeted,
    evaluate,
)

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net

NUM_SAMPLES = 24

every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


@pytest.fixture
def net() -> nn.Module:
    return small_net().eval()


@pytest.fixture
def x() -> Tensor:
    return images(NUM_SAMPLES)


@pytest.fixture
def y(net: nn.Module, x: Tensor) -> Tensor:
    return own_labels(net, x)


@pytest.fixture(scope="module")
def judged() -> Callable[[Attack], Report]:
    """What the judge says of an attack on `net`, `x` and `y`, and the images: once for all tests that look at it."""

    @cache
    def judge(attack: Attack) -> Report:
        net, x = small_net().eval(), images(NUM_SAMPLES)
        return evaluate(net, x, own_labels(net, x), {"a": attack}, keep_adversarial=True, probe_masking=False)

    return judge


@pytest.fixture(scope="module")
def returned() -> Callable[[Attack], Tensor]:
    """The images that an attack on `net`, `x` and `y` gives by seed 3: once for all tests that look at them."""

    @cache
    def give(attack: Attack) -> Tensor:
        net, x = small_net().eval(), images(NUM_SAMPLES)
        return attack(net, x, own_labels(net, x), SampleRng.numbered(NUM_SAMPLES, seed=3))

    return give


def with_eps(attack: Attack, eps: float | Tensor) -> Attack:
    return attack.inside(replace(attack.threat, eps=eps))  # type: ignore[type-var]


@every_attack
def test_stays_inside_the_threat(attack: Attack, x: Tensor, returned: Any) -> None:
    x_adv = returned(attack)
    length = np.linalg.norm((x_adv.double() - x.double()).flatten(1).numpy(), ord=attack.threat.p, axis=1)  # type: ignore[attr-defined]
    assert (length <= float(attack.threat.eps) + 1e-6).all()  # type: ignore[arg-type]
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert x_adv.dtype == x.dtype


@every_attack
def test_verdict_alone_equals_verdict_in_any_batch_order_and_split(attack: Attack) -> None:
    """Alone, every third."""
    net = small_net(dtype=torch.float64)
    x = images(NUM_SAMPLES, dtype=torch.float64)
    y, ids = own_labels(net, x), torch.arange(100, 100 + NUM_SAMPLES)

    def robust(rows: Tensor, **options: Any) -> Tensor:
        report = evaluate(net, x[rows], y[rows], {"a": attack}, sample_ids=ids[rows], probe_masking=False, **options)
        return report.robust["a"]

    whole = robust(torch.arange(NUM_SAMPLES))
    for i in range(0, NUM_SAMPLES, 3):
        assert torch.equal(robust(torch.tensor([i])), whole[i : i + 1])
    order = torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(1))
    assert torch.equal(robust(order, batch_size=7), whole[order])


@every_attack
def test_is_deterministic_by_seed(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, returned: Any) -> None:
    first = returned(attack)
    torch.manual_seed(99)
    again = attack(net, x, y, SampleRng.numbered(NUM_SAMPLES, seed=3))
    assert torch.equal(first, again)


@every_attack
def test_leaves_input_model_and_random_state_untouched(attack: Attack, x: Tensor) -> None:
    net = small_net().train()
    net[1].eval()
    net[5].bias.requires_grad_(False)
    y = own_labels(net, x)
    modes = [module.training for module in net.modules()]
    needs = [p.requires_grad for p in net.parameters()]
    before, x_before, y_before = copy.deepcopy(net.state_dict()), x.clone(), y.clone()
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    evaluate(net, x, y, {"a": attack})
    assert modes == [module.training for module in net.modules()]
    assert needs == [p.requires_grad for p in net.parameters()]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@every_attack
def test_turns_at_least_as_many_as_noise(attack: Attack, judged: Any) -> None:
    noise = RandomNoise(threat=attack.threat, objective=attack.objective)
    success = judged(attack).success["a"]
    assert success.sum() >= judged(noise).success["a"].sum()
    if not isinstance(attack, RandomNoise):
        assert success.sum() > 0


@every_attack
def test_success_is_what_the_model_says_of_the_returned_images(
    attack: Attack, net: nn.Module, y: Tensor, judged: Any
) -> None:
    report = judged(attack)
    with torch.no_grad():
        after = net(report.x_adv["a"]).argmax(1)
    assert torch.equal(report.robust["a"], after == y)
    if isinstance(attack.objective, Targeted) and isinstance(attack.objective.target, int):
        assert torch.equal(report.success["a"], (after == attack.objective.target) & (y != attack.objective.target))
    elif isinstance(attack.objective, Targeted):
        assert (after != y)[report.success["a"]].all()
    elif isinstance(attack.objective, AnyOf):
        among = (after[:, None] == torch.tensor(attack.objective.targets)).any(1)
        assert torch.equal(report.success["a"], among & (after != y))
    else:
        assert torch.equal(report.success["a"], after != y)


@every_attack
def test_works_under_no_grad_and_inference_mode(
    attack: Attack, net: nn.Module, x: Tensor, y: Tensor, judged: Any
) -> None:
    plain = judged(attack).robust["a"]
    with torch.no_grad():
        assert torch.equal(evaluate(net, x, y, {"a": attack}, probe_masking=False).robust["a"], plain)
    with torch.inference_mode():
        assert torch.equal(evaluate(net, x.clone(), y.clone(), {"a": attack}).robust["a"], plain)


@every_attack
def test_an_empty_batch_gives_an_empty_report(attack: Attack, net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net, x[:0], y[:0], {"a": attack})
    assert report.robust["a"].shape == report.worst_case.shape == (0,)
    assert attack(net, x[:0], y[:0]).shape == (0, 1, 6, 6)


@every_attack
def test_the_cost_is_what_a_hook_on_the_model_counts(attack: Attack, net: nn.Module, x: Tensor, y: Tensor) -> None:
    forwards, backwards = [], []

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        forwards.append(len(args[0]))
        if args[0].requires_grad:
            args[0].register_hook(lambda grad: backwards.append(len(grad)))

    handle = net.register_forward_hook(count)
    report = evaluate(net, x, y, {"a": attack})
    handle.remove()
    cost, own = report.cost["a"], report.judge_cost
    assert sum(forwards) == cost.num_forwards + own.num_forwards
    assert own.num_forwards >= 2 * NUM_SAMPLES  # before any attack, and measuring again
    assert sum(backwards) == cost.num_backwards + own.num_backwards


@pytest.mark.parametrize("share", [0.3, 1])
@every_attack
def test_one_eps_per_sample_equals_one_eps_for_all(
    attack: Attack, net: nn.Module, x: Tensor, y: Tensor, share: float, returned: Any
) -> None:
    eps = share * float(attack.threat.eps)
    eps = max(1, round(eps)) if attack.threat.whole_eps else eps
    each, rng = with_eps(attack, torch.full((NUM_SAMPLES,), float(eps))), SampleRng.numbered(NUM_SAMPLES, seed=3)
    one = returned(attack) if share == 1 else with_eps(attack, eps)(net, x, y, rng)
    assert torch.allclose(one, each(net, x, y, rng), atol=1e-6)


def test_restarts_never_hurt(net: nn.Module, x: Tensor, y: Tensor) -> None:
    for name in ("pgd", "pgd, l2", "pgd, margin"):
        attack = replace(ATTACKS[name], num_steps=3)  # type: ignore[type-var]
        alone = evaluate(net, x, y, {"a": attack})
        more = evaluate(net, x, y, {"a": replace(attack, num_restarts=4)})  # type: ignore[type-var]
        assert not (more.robust["a"] & ~alone.robust["a"]).any()


def test_of_several_restarts_the_worst_is_kept(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = PGD(threat=Linf(eps=0.01), num_steps=1, rel_step_size=0.1, num_restarts=6)
    rng = SampleRng.numbered(NUM_SAMPLES)

    def loss(x_adv: Tensor) -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(net(x_adv), y, reduction="none")

    kept = loss(attack(net, x, y, rng))
    standing = own_labels(net, attack(net, x, y, rng)) == y
    assert standing.any()
    one = replace(attack, num_restarts=1)
    tries = [one(net, x, y, rng.fold(restart) if restart else rng) for restart in range(6)]
    each = torch.stack([loss(points) for points in tries])
    assert torch.allclose(kept[standing], each.amax(0)[standing], atol=1e-6)


def test_early_stopping_changes_no_result_and_shrinks_the_work(net: nn.Module, x: Tensor, y: Tensor) -> None:
    quick = evaluate(net, x, y, {"a": ATTACKS["pgd"]}, keep_adversarial=True)
    full = evaluate(net, x, y, {"a": ATTACKS["pgd, no early stop"]}, keep_adversarial=True)
    assert torch.equal(quick.robust["a"], full.robust["a"])
    assert torch.allclose(quick.x_adv["a"], full.x_adv["a"], atol=1e-5)
    assert full.cost["a"].num_backwards == 8 * NUM_SAMPLES
    assert quick.cost["a"].num_backwards < full.cost["a"].num_backwards


def test_a_sample_that_is_wrong_anyway_is_not_attacked(net: nn.Module, x: Tensor, y: Tensor) -> None:
    wrong = y.clone()
    wrong[::2] = (y[::2] + 1) % 4
    report = evaluate(net, x, wrong, {"a": FGSM(threat=ATTACKS["fgsm"].threat)})
    assert report.cost["a"].num_backwards == NUM_SAMPLES // 2
    assert not report.clean_correct[::2].any()
    assert not report.robust["a"][::2].any()
    assert not report.success["a"][::2].any()
