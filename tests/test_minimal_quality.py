"""Distances that attacks find on public models: `FAB` beside `smallest_eps`, and searches over a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    EAD,
    FAB,
    L1,
    L2,
    PGD,
    CarliniWagner,
    Linf,
    Margin,
    Untargeted,
    evaluate,
    smallest_eps,
)
from touchstone.attacks.threats.ball import Ball

from .public_models import cifar_images, mnist_images, resnet2b, trades_mnist

MNIST, CIFAR = (trades_mnist, mnist_images), (resnet2b, cifar_images)
Public = tuple[Callable[[Path], nn.Module], Callable[[Path, int], tuple[Tensor, Tensor]]]


def right_before(public: Public, shared: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """The net, and the first 16 images that it knows."""
    make_net, make_images = public
    net, (x, y) = make_net(shared), make_images(shared, 60)
    with torch.no_grad():
        known = (net(x).argmax(1) == y).nonzero()[:16, 0]
    return net, x[known], y[known]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("public", "threat", "largest", "by_pgd", "by_fab"),
    [
        (MNIST, Linf(eps=1), 1.0, 0.331, 0.349),
        (MNIST, L2(eps=28), 8.0, 3.70, 1.62),
        (MNIST, L1(eps=784), 60.0, 16.7, 22.6),
        (CIFAR, Linf(eps=1), 0.3, 0.0213, 0.0202),
        (CIFAR, L2(eps=30), 4.0, 0.400, 0.388),
        (CIFAR, L1(eps=1000), 40.0, 2.77, 2.76),
    ],
    ids=[f"{net}-{norm}" for net in ("trades_mnist", "resnet2b") for norm in ("linf", "l2", "l1")],
)
def test_fab_and_smallest_eps_find_these_mean_distances(
    shared: Path, public: Public, threat: Ball, largest: float, by_pgd: float, by_fab: float
) -> None:
    net, x, y = right_before(public, shared)
    pgd = PGD(threat=threat, objective=Untargeted(loss=Margin()))
    bisected = float(smallest_eps(net, x, y, pgd, largest=largest, num_rounds=10).mean())
    fab = FAB(threat=threat, num_steps=40, num_targets=3, early_stop=False)
    report = evaluate(net, x, y, {"fab": fab}, keep_adversarial=True)
    assert report.success["fab"].all()
    found = float(threat.distance(report.x_adv["fab"], x).mean())
    print(f"smallest_eps {bisected:.4g}, FAB {found:.4g}", report.cost["fab"])
    assert bisected == pytest.approx(by_pgd, rel=0.1)
    assert found == pytest.approx(by_fab, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        CarliniWagner(threat=L2(eps=28), num_steps=100, num_rounds=6, minimal=True),
        EAD(threat=L1(eps=784), num_steps=100, num_rounds=6, minimal=True),
    ],
    ids=["carlini wagner", "ead"],
)
def test_in_few_steps_a_robust_net_is_turned_by_large_steps_and_weights_alone(
    shared: Path, attack: CarliniWagner | EAD
) -> None:
    net, x, y = right_before(MNIST, shared)
    larger = replace(attack, step_size=0.1, first_weight=1.0)
    report = evaluate(net, x, y, {"default": attack, "larger": larger}, keep_adversarial=True)
    turned = {name: int(success.sum()) for name, success in report.success.items()}
    print(turned, float(attack.threat.distance(report.x_adv["larger"], x).mean()))
    assert turned["default"] <= 3
    assert turned["larger"] == 16
