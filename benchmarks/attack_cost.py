"""Samples left standing against what it costs: `python benchmarks/attack_cost.py --shared FOLDER`.

Two public nets with published figures, whose files FOLDER holds (`models/`, `data/`): `tests/public_models.py` says
which. With `--nets` other kinds than these: `resnet20`, public and trained on plain images, and `digits` and
`digits_robust`, a `SmallCNN` on handwritten digits, trained here on plain images and on those of PGD. Cost counts
samples passed forwards and backwards through the model, so that no machine matters. Prints a table for each net, and
draws the curves.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
from digits_net import digits_images, digits_net
from timing import set_up, show
from torch import Tensor, nn

from touchstone.attacks import (
    APGD,
    DLR,
    FAB,
    L1,
    L2,
    PGD,
    Attack,
    AutoAttack,
    Linf,
    Margin,
    ProbabilityMargin,
    Square,
    Strongest,
    Threat,
    Untargeted,
    evaluate,
)

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = (5, 10, 30, 100, 200, 500)
Row = tuple[str, int, float, float]
"""An attack, the samples that stand after it, and its forwards and backwards for each image."""


def attacks(threat: Threat, with_autoattack: bool) -> dict[str, Attack]:
    """What is compared, by name."""
    dlr = Untargeted(loss=DLR())
    chosen: dict[str, Attack] = {
        "PGD, 20 steps": PGD(threat=threat, num_steps=20),
        "PGD, 40 steps": PGD(threat=threat, num_steps=40),
        "PGD, 20 steps, margin": PGD(threat=threat, num_steps=20, objective=Untargeted(loss=Margin())),
        "PMA, 20 steps": PGD(threat=threat, num_steps=20, objective=Untargeted(loss=ProbabilityMargin())),
        "APGD-CE": APGD(threat=threat),
        "APGD-DLR": APGD(threat=threat, objective=dlr),
        "APGD-T, 3 classes": APGD(threat=threat, objective=dlr, num_targets=3),
        "FAB-T, 3 classes": FAB(threat=threat, num_targets=3, num_steps=30),
        "Square, 300 queries": Square(threat=threat, num_queries=300),
        **{f"Strongest, {budget}": Strongest(threat=threat, max_passes=budget) for budget in BUDGETS},
    }
    return {**chosen, "AutoAttack": AutoAttack(threat=threat)} if with_autoattack else chosen


def digits(_: Path) -> nn.Module:
    """Trained on plain images."""
    torch.manual_seed(0)
    return digits_net()


def digits_robust(_: Path) -> nn.Module:
    """Trained on images attacked inside Linf 0.15."""
    torch.manual_seed(0)
    return digits_net(attack=PGD(threat=Linf(eps=0.15), num_steps=7))


def measure(net: nn.Module, x: Tensor, y: Tensor, chosen: dict[str, Attack]) -> list[Row]:
    """A row for each attack, each on its own."""
    rows = []
    for name, attack in chosen.items():
        report = evaluate(net, x, y, {"a": attack}, probe_masking=False)
        cost = report.cost["a"]
        rows.append((name, int(report.worst_case.sum()), cost.num_forwards / len(x), cost.num_backwards / len(x)))
        print(f"{name}: {rows[-1][1]} of {len(x)} stand", file=sys.stderr, flush=True)
    return rows


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Samples left standing against cost, a panel for each net."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(tables), 4.2), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        cascade = [row for row in rows if row[0].startswith("Strongest")]
        axes.plot([f + b for _, _, f, b in cascade], [n for _, n, _, _ in cascade], "o-", label="Strongest")
        for number, (name, standing, forwards, backwards) in enumerate(row for row in rows if row not in cascade):
            axes.plot(forwards + backwards, standing, "sD^vPX*p<>"[number % 10], color=f"C{number + 1}", label=name)
        axes.set(xscale="log", xlabel="samples passed through the model, per image", ylabel="images left standing")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints and draws."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="the folder of the public nets and images")
    parser.add_argument("--num_images", type=int, default=200)
    parser.add_argument("--nets", nargs="+", default=["resnet2b", "trades_mnist"])
    parser.add_argument("--threats", nargs="+", default=["Linf"], help="of Linf, L2, L1")
    parser.add_argument("--attacks", nargs="+", default=[""], help="how the names of those begin that are measured")
    parser.add_argument("--with_autoattack", action="store_true", help="which takes half an hour")
    parser.add_argument("--picture", type=Path, default=Path("logs/attack_cost.png"), help="where it is drawn")
    parser.add_argument("--num_threads", type=int, default=None)
    given = parser.parse_args()
    set_up(given.num_threads)
    sys.path.insert(0, str(ROOT))
    from tests.public_models import cifar_images, mnist_images, resnet2b, resnet20, trades_mnist

    settings = {
        "resnet2b, CIFAR-10, Linf 2/255": (resnet2b, cifar_images, Linf(eps="2/255")),
        "trades_mnist, MNIST, Linf 0.3": (trades_mnist, mnist_images, Linf(eps=0.3)),
        "resnet2b, CIFAR-10, L2 0.25": (resnet2b, cifar_images, L2(eps=0.25)),
        "trades_mnist, MNIST, L2 1.5": (trades_mnist, mnist_images, L2(eps=1.5)),
        "resnet2b, CIFAR-10, L1 4": (resnet2b, cifar_images, L1(eps=4)),
        "trades_mnist, MNIST, L1 10": (trades_mnist, mnist_images, L1(eps=10)),
        "resnet20, CIFAR-10, Linf 0.5/255": (resnet20, cifar_images, Linf(eps=0.5 / 255)),
        "resnet20, CIFAR-10, L2 0.1": (resnet20, cifar_images, L2(eps=0.1)),
        "resnet20, CIFAR-10, L1 1": (resnet20, cifar_images, L1(eps=1)),
    }
    for net in (digits, digits_robust):
        for threat in (Linf(eps=0.15), L2(eps=0.75), L1(eps=2)):
            settings[f"{net.__name__}, {threat}"] = (net, lambda _, number: digits_images(number), threat)
    tables = {}
    for title, (make_net, make_images, threat) in settings.items():
        if type(threat).__name__ not in given.threats or make_net.__name__ not in given.nets:
            continue
        x, y = make_images(given.shared, given.num_images)
        chosen = attacks(threat, given.with_autoattack)
        chosen = {name: attack for name, attack in chosen.items() if name.startswith(tuple(given.attacks))}
        tables[title] = measure(make_net(given.shared), x, y, chosen)
        cells = [(name, standing, f"{f:.1f}", f"{b:.1f}") for name, standing, f, b in tables[title]]
        show(f"{title}, {len(x)} images", ("attack", "standing", "forwards", "backwards"), cells)
    draw(tables, given.picture)
    print(f"picture: {given.picture}")


if __name__ == "__main__":
    main()
