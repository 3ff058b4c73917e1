"""Attacks that learn from samples before they attack: what the judge asks of them, counts and holds apart."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from touchstone.attacks import PGD, Attack, Linf, SampleRng, Surrogate, Threat, Transfer, Universal, evaluate

from .oracles import images, own_labels, small_net

LINF = Linf(eps=0.1)
LEARNING: dict[str, Attack] = {
    "universal": Universal(threat=LINF),
    "surrogate": Surrogate(threat=LINF, net=small_net(seed=1), num_queries=150),
    "surrogate_logits": Surrogate(threat=LINF, net=small_net(seed=1), num_queries=150, answers="logits"),
}

every_learning_attack = pytest.mark.parametrize("attack", LEARNING.values(), ids=LEARNING.keys())


def labelled(num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    x = images(num_samples, seed=seed)
    return x, own_labels(small_net(), x)


X, Y = labelled(20, seed=0)
OTHERS = labelled(50, seed=5)


@every_learning_attack
def test_the_cost_holds_what_a_hook_counts_while_it_learns(attack: Attack) -> None:
    net, forwards, backwards = small_net(), [], []

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        forwards.append(len(args[0]))
        if args[0].requires_grad:
            args[0].register_hook(lambda grad: backwards.append(len(grad)))

    net.register_forward_hook(count)
    report = evaluate(net, X, Y, {"a": attack}, prepare_on=OTHERS)
    assert sum(forwards) == report.cost["a"].num_forwards + report.judge_cost.num_forwards
    assert sum(backwards) == report.cost["a"].num_backwards + report.judge_cost.num_backwards
    assert report.cost["a"].num_forwards > 0
    assert report.cost["a"].seconds > 0


@every_learning_attack
def test_it_learns_the_same_again_and_leaves_no_trace(attack: Attack) -> None:
    net = small_net().train()
    net[5].bias.requires_grad_(False)
    modes, needs = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first = evaluate(net, X, Y, {"a": attack}, prepare_on=OTHERS, keep_adversarial=True, seed=3)
    torch.manual_seed(99)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    with torch.inference_mode():
        again = evaluate(net, X, Y, {"a": attack}, prepare_on=OTHERS, keep_adversarial=True, seed=3)
    assert torch.equal(first.x_adv["a"], again.x_adv["a"])
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == needs
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@every_learning_attack
def test_what_has_learned_is_in_the_report_and_needs_no_samples_any_more(attack: Attack) -> None:
    report = evaluate(small_net(), X, Y, {"a": attack}, prepare_on=OTHERS, keep_adversarial=True)
    ready = report.attacks["a"]
    assert not ready.needs_samples
    again = evaluate(small_net(), X, Y, {"a": ready}, keep_adversarial=True)
    assert torch.equal(again.x_adv["a"], report.x_adv["a"])
    assert again.cost["a"].num_forwards < report.cost["a"].num_forwards


@every_learning_attack
def test_without_samples_it_says_what_to_give(attack: Attack) -> None:
    name = type(attack).__name__
    with pytest.raises(ValueError, match=rf"attack 'a': {name} learns from samples.*`evaluate\(prepare_on=\(x, y\)\)`"):
        evaluate(small_net(), X, Y, {"a": attack})
    with pytest.raises(
        ValueError, match=rf"{name} learns from samples before it attacks: call `.prepare\(model, x, y\)`"
    ):
        attack(small_net(), X, Y)
    with pytest.raises(
        ValueError, match=rf"attack 'a': {name}.prepare needs at least one sample to learn from, got none"
    ):
        evaluate(small_net(), X, Y, {"a": attack}, prepare_on=(X[:0], Y[:0]))


def test_samples_that_are_evaluated_as_well_are_refused() -> None:
    x, y = torch.cat([OTHERS[0], X[7:9]]), torch.cat([OTHERS[1], Y[7:9]])
    message = (
        r"evaluate\(prepare_on=...\) must be other samples than those evaluated, got 2 of 20 again, first sample id 107"
    )
    with pytest.raises(ValueError, match=message):
        evaluate(small_net(), X, Y, LEARNING, prepare_on=(x, y), sample_ids=range(100, 120))
    evaluate(small_net(), X, Y, {"pgd": PGD(threat=LINF)}, prepare_on=(x, y))  # nothing learns from them


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((OTHERS[0] * 255, OTHERS[1]), r"attack 'universal': images must lie in \[0, 1\]"),
        ((OTHERS[0], OTHERS[1][:-1]), "attack 'universal': there must be one label per image"),
        ((OTHERS[0], OTHERS[1] + 4), "attack 'universal': labels must be classes of the model, 0 to 3"),
    ],
)
def test_wrong_samples_are_named_with_the_attack(samples: tuple[Tensor, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(small_net(), X, Y, {"universal": LEARNING["universal"]}, prepare_on=samples)


@pytest.mark.parametrize("attack", [PGD(threat=LINF), LEARNING["universal"]])
@pytest.mark.parametrize(
    ("samples", "given"),
    [
        ("nonsense", "str"),
        (OTHERS[0][:2], "Tensor"),
        (TensorDataset(*OTHERS), "TensorDataset"),
        ((OTHERS[0].numpy(), OTHERS[1].numpy()), "tuple of ndarray, ndarray"),
        ((*OTHERS, OTHERS[1]), "tuple of Tensor, Tensor, Tensor"),
    ],
)
def test_what_is_no_pair_of_tensors_is_refused(attack: Attack, samples: Any, given: str) -> None:
    with pytest.raises(ValueError, match=rf"evaluate\(prepare_on=...\) must be \(x, y\), .*, got {given}$"):
        evaluate(small_net(), X, Y, {"a": attack}, prepare_on=samples)


@dataclass(frozen=True, eq=False)
class Learning(Attack):
    """A user's own: what `learn` does is a field."""

    threat: Threat
    how: str = "well"
    seen: list[int] = field(default_factory=list)
    needs_samples = True

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Attack:
        self.seen.append(len(x))
        if self.how == "spoiling":
            model[5].bias.data.add_(1)  # type: ignore[operator, union-attr, index]
        if self.how == "in training mode":
            model.train()
        if self.how == "widening":
            object.__setattr__(self, "threat", Linf(eps=0.9))
        threat = Linf(eps=0.9) if self.how == "cheating" else self.threat
        return self if self.how == "not ready" else PGD(threat=threat, objective=self.objective)


def test_an_attack_of_ones_own_learns_in_one_method() -> None:
    attack = Learning(LINF)
    report = evaluate(small_net(), X, Y, {"own": attack, "pgd": PGD(threat=LINF)}, prepare_on=OTHERS)
    assert attack.seen == [50]
    assert torch.equal(report.robust["own"], report.robust["pgd"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("spoiling", "attack 'own' changed the model: 5.bias is not what it was before; it stays so, load the"),
        ("cheating", r"'own': Learning.learn must return an attack that is ready, with the threat.*Linf\(eps=0.9"),
        ("widening", r"attack 'own' changed its threat.*Linf\(eps=0.1\) has become Linf\(eps=0.9\)"),
        ("not ready", "'own': Learning.learn must return an attack that is ready"),
    ],
)
def test_what_learning_may_not_do_is_found(how: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(small_net(), X, Y, {"own": Learning(LINF, how=how)}, prepare_on=OTHERS)


def test_modes_that_learning_changes_are_restored() -> None:
    net = small_net().eval()
    net[0].train()
    evaluate(net, X, Y, {"own": Learning(LINF, how="in training mode")}, prepare_on=OTHERS)
    assert [module.training for module in net] == [True] + [False] * (len(net) - 1)
    assert not net.training


def test_an_attack_that_defines_nothing_says_what_to_define() -> None:
    @dataclass(frozen=True)
    class Empty(Attack):
        threat: Threat
        needs_samples = True

    with pytest.raises(TypeError, match=r"Empty must define learn\(self, model, x, y, rng\)"):
        Empty(LINF).prepare(small_net(), *OTHERS)


def test_an_attack_that_needs_no_samples_is_ready_as_it_is() -> None:
    for attack in (PGD(threat=LINF), Transfer(attack=PGD(threat=LINF), source=small_net())):
        assert attack.prepare(small_net(), *OTHERS) is attack
        assert not attack.needs_samples
    assert replace(PGD(threat=LINF), num_steps=3).prepare(small_net(), X[:0], Y[:0]) == PGD(threat=LINF, num_steps=3)
