"""Figures of AutoAttack and its parts on public models, beside those of the original and published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from touchstone.attacks import (
    APGD,
    DLR,
    FAB,
    FGSM,
    L1,
    L2,
    PGD,
    Attack,
    AutoAttack,
    Linf,
    Margin,
    RandomNoise,
    Square,
    Threat,
    Untargeted,
    evaluate,
)

from .public_models import cifar_images, mnist_images, resnet2b, trades_mnist


@pytest.mark.parametrize(
    ("make_net", "make_images", "threat", "published_clean"),
    [(resnet2b, cifar_images, Linf(eps="2/255"), 0.6925), (trades_mnist, mnist_images, Linf(eps=0.3), 0.9948)],
    ids=["resnet2b", "trades_mnist"],
)
def test_public_models_have_their_published_clean_accuracy_and_attacks_their_order(
    shared: Path,
    make_net: Callable[[Path], nn.Module],
    make_images: Callable[[Path, int], tuple[Tensor, Tensor]],
    threat: Linf,
    published_clean: float,
) -> None:
    num_images = 100
    x, y = make_images(shared, num_images)
    attacks: dict[str, Any] = {
        "noise": RandomNoise(threat=threat),
        "fgsm": FGSM(threat=threat),
        "pgd": PGD(threat=threat, num_steps=20),
        "margin": PGD(threat=threat, num_steps=20, objective=Untargeted(loss=Margin())),
    }
    report = evaluate(make_net(shared), x, y, attacks)
    clean = float(report.clean_correct.float().mean())
    assert abs(clean - published_clean) < 4 * (published_clean * (1 - published_clean) / num_images) ** 0.5
    robust = {name: int(verdict.sum()) for name, verdict in report.robust.items()}
    assert robust["pgd"] < robust["fgsm"] < robust["noise"]
    assert robust["margin"] <= robust["fgsm"]
    assert report.warnings == []


@pytest.mark.parametrize(
    ("attack", "most_standing"),
    [
        # The original code leaves 113 or 114, 110, 111 and 123 of these images with the same parameters.
        (APGD(threat=Linf(eps="2/255")), 115),
        (APGD(threat=Linf(eps="2/255"), objective=Untargeted(loss=DLR())), 111),
        (FAB(threat=Linf(eps="2/255"), num_targets=3, num_steps=10), 111),
        (Square(threat=Linf(eps="2/255"), num_queries=300), 125),
    ],
    ids=["apgd-ce", "apgd-dlr", "fab-t", "square"],
)
def test_the_parts_of_autoattack_find_what_the_original_finds(shared: Path, attack: Attack, most_standing: int) -> None:
    x, y = cifar_images(shared, 200)
    assert 109 <= int(evaluate(resnet2b(shared), x, y, {"a": attack}).worst_case.sum()) <= most_standing


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("make_net", "make_images", "threat", "standing", "num_forwards", "num_backwards"),
    [
        (resnet2b, cifar_images, Linf(eps="2/255"), 110, 869_000, 213_000),
        (trades_mnist, mnist_images, Linf(eps=0.3), 182, 1_438_000, 351_000),
        (resnet2b, cifar_images, L2(eps=0.25), 91, 722_000, 179_000),
        (resnet2b, cifar_images, L1(eps=4), 19, 167_000, 52_000),
    ],
    ids=["resnet2b", "trades_mnist", "resnet2b, l2", "resnet2b, l1"],
)
def test_autoattack_leaves_what_the_original_leaves_and_costs_no_more(
    shared: Path,
    make_net: Callable[[Path], nn.Module],
    make_images: Callable[[Path, int], tuple[Tensor, Tensor]],
    threat: Threat,
    standing: int,
    num_forwards: int,
    num_backwards: int,
) -> None:
    x, y = make_images(shared, 200)
    report = evaluate(make_net(shared), x, y, {"auto": AutoAttack(threat=threat)})
    cost = report.cost["auto"]
    print(int(report.worst_case.sum()), cost)
    assert abs(int(report.worst_case.sum()) - standing) <= 1
    assert cost.num_forwards <= 1.01 * num_forwards
    assert cost.num_backwards <= 1.01 * num_backwards
