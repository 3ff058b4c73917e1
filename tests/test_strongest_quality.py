"""Figures that `Strongest` must reach on public models, beside those of AutoAttack and published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    APGD,
    DLR,
    L1,
    L2,
    PGD,
    Linf,
    Strongest,
    Threat,
    Untargeted,
    evaluate,
)

from .public_models import cifar_images, mnist_images, resnet2b, resnet20, trades_mnist


@pytest.mark.parametrize(
    ("make_net", "make_images", "threat", "standing", "cost"),
    [
        (resnet2b, cifar_images, Linf(eps="2/255"), 110, 30),
        (resnet2b, cifar_images, L2(eps=0.25), 91, 53),  # AutoAttack: 91 at 4,505 an image
        (trades_mnist, mnist_images, Linf(eps=0.3), 183, 50),
    ],
    ids=["resnet2b", "resnet2b, l2", "trades_mnist"],
)
def test_strongest_finds_what_autoattack_finds_at_a_fiftieth_of_its_cost_on_200_images(
    shared: Path,
    make_net: Callable[[Path], nn.Module],
    make_images: Callable[[Path, int], tuple[Tensor, Tensor]],
    threat: Threat,
    standing: int,
    cost: int,
) -> None:
    x, y = make_images(shared, 200)
    assert_strongest(make_net(shared), x, y, Strongest(threat=threat), standing, cost)


def assert_strongest(
    net: nn.Module, x: Tensor, y: Tensor, attack: Strongest, standing: int, cost: float, seed: int = 0
) -> None:
    """No more samples stand, and no more of them are passed forwards and backwards for each image."""
    report = evaluate(net, x, y, {"s": attack}, seed=seed)
    spent = (report.cost["s"].num_forwards + report.cost["s"].num_backwards) / len(x)
    print(attack.threat, "seed", seed, "standing", int(report.worst_case.sum()), f"at {spent:.1f} an image")
    assert int(report.worst_case.sum()) <= standing
    assert spent <= cost
    assert report.warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("make_net", "make_images", "num_images", "threat", "max_passes", "standing", "cost"),
    [
        (resnet2b, cifar_images, 1000, Linf(eps="2/255"), 200, 550, 30),
        (resnet2b, cifar_images, 1000, Linf(eps="2/255"), 500, 550, 5410 / 40),
        (trades_mnist, mnist_images, 200, Linf(eps=0.3), 200, 183, 50),
        (trades_mnist, mnist_images, 200, Linf(eps=0.3), 500, 182, 8945 / 40),
    ],
    ids=["resnet2b", "resnet2b, thorough", "trades_mnist", "trades_mnist, thorough"],
)
def test_strongest_leaves_no_more_than_autoattack_whatever_the_seed(
    shared: Path,
    make_net: Callable[[Path], nn.Module],
    make_images: Callable[[Path, int], tuple[Tensor, Tensor]],
    num_images: int,
    threat: Linf,
    max_passes: int,
    standing: int,
    cost: float,
    seed: int,
) -> None:
    """AutoAttack leaves 550 of 1,000 (5,410 samples an image) and 182 of 200 (8,945)."""
    x, y = make_images(shared, num_images)
    assert_strongest(make_net(shared), x, y, Strongest(threat=threat, max_passes=max_passes), standing, cost, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make_net", "make_images", "threat", "max_passes", "standing", "cost"),
    [
        (resnet2b, cifar_images, L2(eps=0.25), 200, 91, 53),
        (resnet2b, cifar_images, L2(eps=0.25), 500, 90, 175),
        (resnet2b, cifar_images, L1(eps=4), 200, 22, 22.5),
        (resnet2b, cifar_images, L1(eps=4), 500, 20, 110),
        (trades_mnist, mnist_images, L2(eps=1.5), 200, 102, 5897 / 50),
        (trades_mnist, mnist_images, L2(eps=1.5), 500, 88, 400),
        (trades_mnist, mnist_images, L1(eps=10), 200, 10, 52),
        (trades_mnist, mnist_images, L1(eps=10), 500, 4, 70),
    ],
    ids=[
        "l2",
        "l2, thorough",
        "l1",
        "l1, thorough",
        "mnist, l2",
        "mnist, l2, thorough",
        "mnist, l1",
        "mnist, l1, thorough",
    ],
)
def test_strongest_inside_l2_and_l1(
    shared: Path,
    make_net: Callable[[Path], nn.Module],
    make_images: Callable[[Path, int], tuple[Tensor, Tensor]],
    threat: Threat,
    max_passes: int,
    standing: int,
    cost: float,
    seed: int,
) -> None:
    """AutoAttack leaves 91 at 4,440 samples an image, 20 at 1,075; of MNIST 100 at 5,897, and 12 at 958 inside L1."""
    x, y = make_images(shared, 200)
    attack = Strongest(threat=threat, max_passes=max_passes)
    assert_strongest(make_net(shared), x, y, attack, standing, cost, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("width", "inner", "num_images", "other"),
    [
        (32, None, 300, APGD(threat=L2(eps=0.75), num_steps=20, num_targets=3, objective=Untargeted(loss=DLR()))),
        (64, PGD(threat=Linf(eps=0.15), num_steps=7), 200, APGD(threat=Linf(eps=0.15), num_steps=100)),
        (
            32,
            PGD(threat=L2(eps=0.75), num_steps=7),
            200,
            APGD(threat=L1(eps=2), num_steps=40, num_targets=3, objective=Untargeted(loss=DLR())),
        ),
    ],
    ids=["plain, towards every near class", "robust, along the likelihood", "robust, towards every near class by few"],
)
def test_on_nets_of_digits_it_leaves_at_most_one_more_than_another_kind_of_climb(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    inner: PGD | None,
    num_images: int,
    other: APGD,
) -> None:
    """A class that never gives way hides another one that would; margins end where the likelihood does not.

    The nets are trained anew, and come out differently on other processors: of one on an Intel Xeon 156 stand inside
    Linf, where the other climb leaves 155.
    """
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from digits_net import digits_images, digits_net

    torch.manual_seed(0)
    net, (x, y) = digits_net(width=width, attack=inner), digits_images(num_images)
    attacks = {"s": Strongest(threat=other.threat), "other": other}
    report = evaluate(net, x, y, attacks, probe_masking=False)
    spent = report.cost["s"].num_forwards + report.cost["s"].num_backwards
    standing = [int(robust.sum()) for robust in report.robust.values()]
    print(other.threat, "standing", *standing, f"at {spent / len(x):.1f} an image")
    assert standing[0] <= standing[1] + 1
    assert spent / len(x) <= 85


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("threat", "standing", "cost"),
    [(Linf(eps=0.5 / 255), 57, 60), (L2(eps=0.1), 41, 66), (L1(eps=1), 52, 88)],
    ids=["linf", "l2", "l1"],
)
def test_on_a_net_trained_without_any_attack(
    shared: Path, threat: Threat, standing: int, cost: float, seed: int
) -> None:
    """Of 100 images AutoAttack leaves 57, 40 and 48."""
    x, y = cifar_images(shared, 100)
    assert_strongest(resnet20(shared), x, y, Strongest(threat=threat), standing, cost, seed=seed)


@pytest.mark.slow
def test_published_pgd_figures_of_resnet2b_are_reached(shared: Path) -> None:
    """Published for the whole test set: PGD leaves 62.24 % at 1/255, 54.82 % at 2/255."""
    x, y = cifar_images(shared, 1000)
    net = resnet2b(shared)
    for eps, standing in (("1/255", 623), ("2/255", 553)):
        report = evaluate(net, x, y, {"s": Strongest(threat=Linf(eps=eps))})
        assert int(report.worst_case.sum()) <= standing
