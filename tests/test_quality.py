"""Figures that the configs and attacks must reach: on digits, and on public models with published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
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
    Strongest,
    Threat,
    Untargeted,
    evaluate,
)
from touchstone.datamodules import DigitsDataModule

from .public_models import cifar_images, mnist_images, resnet2b, trades_mnist

SEEDS = (0, 1, 2)


def trained_by(config: Path, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The module that `python train.py fit --config CONFIG` ends with."""
    import train

    monkeypatch.chdir(folder)
    settings = yaml.safe_load(config.read_text())
    callbacks = [c for c in settings["trainer"]["callbacks"] if "ModelCheckpoint" in c["class_path"]]
    for callback in callbacks:
        callback["init_args"].pop("monitor", None)
    settings["trainer"]["callbacks"] = callbacks[-1:]  # measured below, once
    settings["trainer"]["enable_progress_bar"] = False
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert train.main(["fit", "--config", "config.yaml", f"--seed_everything={seed}"]) == 0
    from touchstone.lightning_modules import Classifier
    from touchstone.nets import SmallCNN

    newest = max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    module = Classifier(SmallCNN(width=32))
    module.load_state_dict(torch.load(newest, weights_only=True)["state_dict"])
    return module


def mean_shares(config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Clean accuracy and accuracy after PGD-20 at three eps on the held-out split, means over the seeds."""
    data = DigitsDataModule()
    data.setup("test")
    x, y = data.test.tensors
    attacks = {str(eps): PGD(threat=Linf(eps=eps), num_steps=20) for eps in (0.1, 0.15, 0.2)}
    shares: list[list[float]] = []
    for seed in SEEDS:
        (folder / str(seed)).mkdir()
        report = evaluate(trained_by(config, seed, folder / str(seed), monkeypatch), x, y, attacks)
        shares.append([float(v.float().mean()) for v in (report.clean_correct, *report.robust.values())])
    means = dict(zip(("clean", *attacks), np.mean(shares, axis=0).tolist(), strict=True))
    print(config.name, {name: f"{share:.1%}" for name, share in means.items()})
    return means


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_standard_net_is_accurate_and_falls(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = mean_shares(root / "configs/digits.yaml", tmp_path, monkeypatch)
    assert means["clean"] >= 0.975
    assert means["0.15"] <= 0.30
    assert means["0.2"] <= 0.10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_robust_net_is_accurate_and_stands(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = mean_shares(root / "configs/digits_robust.yaml", tmp_path, monkeypatch)
    assert means["clean"] >= 0.97
    assert means["0.15"] >= 0.78
    assert means["0.1"] >= 0.85


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
    x, y = make_images(shared, 200)
    attacks: dict[str, Any] = {
        "noise": RandomNoise(threat=threat),
        "fgsm": FGSM(threat=threat),
        "pgd": PGD(threat=threat, num_steps=20),
        "margin": PGD(threat=threat, num_steps=20, objective=Untargeted(loss=Margin())),
    }
    report = evaluate(make_net(shared), x, y, attacks)
    clean = float(report.clean_correct.float().mean())
    assert abs(clean - published_clean) < 4 * (published_clean * (1 - published_clean) / 200) ** 0.5
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


@pytest.mark.parametrize(
    ("make_net", "make_images", "threat", "standing", "cost"),
    [
        (resnet2b, cifar_images, Linf(eps="2/255"), 110, 30),
        (resnet2b, cifar_images, L2(eps=0.25), 91, 90),  # AutoAttack: 91 at 4,505 an image
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
        (resnet2b, cifar_images, L2(eps=0.25), 200, 91, 4440 / 50),
        (resnet2b, cifar_images, L1(eps=4), 200, 22, 25),
        (resnet2b, cifar_images, L1(eps=4), 500, 20, 90),
        (trades_mnist, mnist_images, L2(eps=1.5), 200, 103, 5897 / 50),
        (trades_mnist, mnist_images, L2(eps=1.5), 500, 88, 400),
        (trades_mnist, mnist_images, L1(eps=10), 200, 8, 48),
        (trades_mnist, mnist_images, L1(eps=10), 500, 4, 66),
    ],
    ids=["l2", "l1", "l1, thorough", "mnist, l2", "mnist, l2, thorough", "mnist, l1", "mnist, l1, thorough"],
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
def test_published_pgd_figures_of_resnet2b_are_reached(shared: Path) -> None:
    """Published for the whole test set: PGD leaves 62.24 % at 1/255, 54.82 % at 2/255."""
    x, y = cifar_images(shared, 1000)
    net = resnet2b(shared)
    for eps, standing in (("1/255", 623), ("2/255", 553)):
        report = evaluate(net, x, y, {"s": Strongest(threat=Linf(eps=eps))})
        assert int(report.worst_case.sum()) <= standing
