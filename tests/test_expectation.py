"""Expectation over what a model draws: the mean gain, its gradient, what it costs, and that it turns more."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import APGD, PGD, Linf, Untargeted, evaluate
from touchstone.attacks.core.ascend import gradient_of
from touchstone.attacks.core.gain import gain_of

from .oracles import images, own_labels, small_net


class Noisy(nn.Module):
    """A net that sees other noise on the image at each forward; knows how many of its graphs are held at once."""

    def __init__(self, inner: nn.Module, deviation: float = 0.3) -> None:
        super().__init__()
        self.inner, self.deviation = inner, deviation
        self.held: list[weakref.ref[Tensor]] = []
        self.most_held = 0

    def forward(self, x: Tensor) -> Tensor:
        seen = x + self.deviation * torch.randn_like(x)
        seen = seen * seen.sigmoid()  # a tensor that only the graph holds
        self.held = [known for known in self.held if known() is not None] + [weakref.ref(seen)]
        self.most_held = max(self.most_held, len(self.held))
        return self.inner(seen)


def test_gain_and_gradient_are_the_means_over_the_draws() -> None:
    model, x = Noisy(small_net(dtype=torch.float64).eval()), images(6, dtype=torch.float64)
    y, rows, loss = own_labels(model, x), torch.tensor([4, 0, 1]), nn.CrossEntropyLoss(reduction="none")
    points = x[rows].requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = [model(points) for _ in range(3)]
        gains = torch.stack([loss(each, y[rows]) for each in logits])
        (expected,) = torch.autograd.grad(gains.mean(0).sum(), points)
        torch.manual_seed(0)
        gain, reached = gain_of(model, Untargeted(), y, num_eot_samples=3)(points, rows)
    assert torch.allclose(gain, gains.mean(0))
    assert torch.allclose(gradient_of(gain, points), expected)
    assert torch.equal(reached, torch.stack(logits).mean(0).argmax(1) != y[rows])
    with torch.no_grad():
        assert not gain_of(model, Untargeted(), y, num_eot_samples=3)(points, rows)[0].requires_grad


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_one_forward_at_a_time_is_held_in_memory(attack: type[PGD] | type[APGD]) -> None:
    model, x = Noisy(small_net().eval()), images(6)
    many = attack(threat=Linf(eps=0.01), num_steps=3, num_eot_samples=10)
    report = evaluate(model, x, own_labels(model.inner, x), {"a": many}, probe_masking=False)
    assert report.cost["a"].num_backwards >= 100
    assert report.cost["a"].num_backwards % 10 == 0
    assert model.most_held <= 2  # the graph of the last one is let go when the next has begun


def test_the_mean_over_draws_turns_more_than_single_ones() -> None:
    net, x = small_net(seed=2).eval(), images(200)
    model, y = Noisy(net, deviation=1.0).eval(), own_labels(net, x)
    one = PGD(threat=Linf(eps=0.1), num_steps=2, to_the_end=True)
    attacks = {"one": one, "mean": replace(one, num_eot_samples=30)}
    report = evaluate(model, x, y, attacks, keep_adversarial=True, probe_masking=False)

    def accuracy(points: Tensor) -> float:
        """Over many draws."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            right = torch.stack([model(points).argmax(1) == y for _ in range(100)])
        return float(right[:, report.clean_correct].float().mean())

    assert accuracy(report.x_adv["mean"]) < accuracy(report.x_adv["one"]) - 0.01


def test_a_verdict_of_a_model_that_draws_does_not_depend_on_the_attacks_before_it() -> None:
    net, x = small_net().eval(), images(40)
    y, attack = own_labels(net, x), PGD(threat=Linf(eps=0.01), num_steps=2)
    first = {"first": PGD(threat=Linf(eps=0.05), num_steps=3)}
    alone, second = (evaluate(Noisy(net), x, y, {**before, "a": attack}, probe_masking=False) for before in ({}, first))
    assert 0 < alone.robust["a"].sum() < alone.clean_correct.sum()
    assert torch.equal(alone.robust["a"], second.robust["a"])
