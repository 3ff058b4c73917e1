"""Accuracy, robust accuracy, parameters and speed over the rank of the layers: `python benchmarks/low_rank_curve.py`.

Each linear and convolutional layer of a trained net is replaced by its best factors of rank r, without training after
it; where the factors are no smaller, the layer stays. The table and a picture of it are what a choice of r needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from timing import machine, set_up, show, take_turns
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf, evaluate
from touchstone.nets import PublicCheckpoint, ThinResNet, low_rank
from touchstone.nets.imagenet import MEAN, STD

RANKS = (1, 2, 4, 8, 12, 16, 24, 32, 48)


@dataclass(frozen=True)
class Measured:
    """A net: the rank of its layers, None for the net as it was; shares of the samples; milliseconds a forward."""

    rank: int | None
    accuracy: float
    robust_accuracy: float
    num_parameters: int
    milliseconds: float


def measure(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Linf,
    *,
    ranks: Sequence[int],
    num_turns: int,
    clock: Callable[[], float],
) -> list[Measured]:
    """The net as it is and with layers of each rank, attacked by PGD with 20 steps, timed side by side."""
    nets = {None: net, **{rank: low_rank(net, rank=rank) for rank in ranks}}

    def forward(one: nn.Module) -> Callable[[], object]:
        def work() -> None:
            with torch.no_grad():
                one(x)

        return work

    seconds = take_turns({str(rank): forward(one) for rank, one in nets.items()}, num_turns, clock)
    found = []
    for rank, one in nets.items():
        report = evaluate(one, x, y, attacks={"pgd": PGD(threat=threat, num_steps=20)}, seed=0)
        accuracy, robust = (float(part.float().mean()) for part in (report.clean_correct, report.robust["pgd"]))
        num_parameters = sum(parameter.numel() for parameter in one.parameters())
        found.append(Measured(rank, accuracy, robust, num_parameters, 1000 * min(seconds[str(rank)])))
    return found


def draw(rows: Sequence[Measured], path: Path, title: str) -> None:
    """Accuracy, and parameters and time as shares of those of the whole net, over the rank."""
    whole, factored = rows[0], rows[1:]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ranks = [row.rank for row in factored]
    for name, values, before, colour in (
        ("clean", [row.accuracy for row in factored], whole.accuracy, "tab:blue"),
        ("after PGD-20", [row.robust_accuracy for row in factored], whole.robust_accuracy, "tab:red"),
    ):
        left.plot(ranks, values, marker="o", color=colour, label=name)
        left.axhline(before, color=colour, linestyle=":", label=f"{name}, as it was")
    right.plot(ranks, [row.num_parameters / whole.num_parameters for row in factored], marker="o", label="parameters")
    right.plot(ranks, [row.milliseconds / whole.milliseconds for row in factored], marker="o", label="time a forward")
    right.axhline(1, color="grey", linestyle=":")
    for axes, label in ((left, "accuracy"), (right, "share of the net as it was")):
        axes.set(xlabel="rank r of the layers", ylabel=label, ylim=(0, None))
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.text(0.995, 0.005, machine(), fontsize=6, ha="right", va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    checkpoint: str = "../shared/models/akamaster_resnet20-12fca82f.th",
    data: str = "../shared/data/cifar10_test1000_lossless.npz",
    eps: float = 0.5 / 255,
    num_samples: int = 500,
    num_turns: int = 5,
    num_threads: int | None = None,
    picture: str = "logs/low_rank.png",
) -> None:
    """Measures a ResNet-20 of CIFAR-10 with published weights.

    Args:
        checkpoint: weights of a ResNet-20.
        data: test images, with the arrays `x` and `y`.
        eps: of the attack inside Linf.
        num_samples: of the test images, >= 1.
        num_turns: how often each net is timed.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        picture: where to draw it.
    """
    from touchstone.datamodules import NpzImages

    clock = set_up(num_threads)
    images = NpzImages(test=data).read("test", Path())
    assert images is not None
    x, y = images.x[:num_samples].float() / 255, images.y[:num_samples]
    net = PublicCheckpoint(ThinResNet(20), checkpoint, mean=MEAN, std=STD).eval()
    rows = measure(net, x, y, Linf(eps=eps), ranks=RANKS, num_turns=num_turns, clock=clock)
    error = 100 * math.sqrt(0.25 / len(y))
    title = f"ResNet-20, {len(y)} images (standard error up to {error:.1f} points), Linf eps {eps * 255:g}/255"
    draw(rows, Path(picture), title)
    cells = [
        (
            "as it was" if row.rank is None else row.rank,
            f"{row.accuracy:.1%}",
            f"{row.robust_accuracy:.1%}",
            f"{row.num_parameters:,}",
            f"{row.milliseconds:.0f}",
        )
        for row in rows
    ]
    show(title, ("rank", "accuracy", "after PGD-20", "parameters", "forward, ms"), cells)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
