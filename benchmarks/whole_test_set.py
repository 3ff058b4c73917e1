"""What `Strongest` leaves of all 10,000 test images of MNIST: `python benchmarks/whole_test_set.py --shared FOLDER`.

The net is the public one of TRADES, inside Linf 0.3, with published figures: FGSM-40 leaves 96.07 %, FAB 93.33 %,
AutoAttack 92.81 %, Square 92.58 %. The thorough budget attacks every image, the patient one those that stand. This
takes hours; what was measured of a thousand images is kept, so that a run that was stopped goes on. A verdict depends
on the image alone, so that it does not matter in how many pieces they come.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from timing import set_up, show
from torch import Tensor, nn

from touchstone.attacks import Linf, Strongest, evaluate

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = (500, 2000)


def standing(net: nn.Module, x: Tensor, y: Tensor, rows: Tensor, threat: Linf, max_passes: int) -> Tensor:
    """Which of the images stand, by their numbers in the test set: int64 `(M,)`, a part of `rows`."""
    attacks = {"strongest": Strongest(threat=threat, max_passes=max_passes)}
    report = evaluate(net, x[rows], y[rows], attacks, sample_ids=rows, probe_masking=False, batch_size=500)
    return rows[report.robust["strongest"]]


def main(
    shared: Path,
    folder: Path = Path("logs/whole_test_set"),
    part_size: int = 1000,
    num_images: int = 10_000,
    budgets: tuple[int, int] = BUDGETS,
    num_threads: int | None = None,
) -> None:
    """Measures part by part, and prints how many stand.

    Args:
        shared: the folder of the public nets and images.
        folder: where the parts are kept that were measured.
        part_size: images in a part.
        num_images: of the test set, from its beginning.
        budgets: `max_passes` for all images, and for those that stand then.
        num_threads: threads of torch; None for its choice.
    """
    set_up(num_threads)
    sys.path.insert(0, str(ROOT))
    from tests.public_models import mnist_images, trades_mnist

    net, (x, y) = trades_mnist(shared), mnist_images(shared, num_images)
    folder.mkdir(parents=True, exist_ok=True)
    cells: list[tuple[str, int, int]] = []
    for rows in torch.arange(num_images).split(part_size):
        name, left = f"{int(rows[0])} to {int(rows[-1])}", [rows]
        for max_passes in budgets:
            kept = folder / f"{name.replace(' ', '_')}_{max_passes}.pt"
            if not kept.is_file():
                torch.save(standing(net, x, y, left[-1], Linf(eps=0.3), max_passes), kept)
            left.append(torch.load(kept, weights_only=True))
        cells.append((name, len(left[1]), len(left[2])))
        print(f"{name}: {len(left[1])} stand, then {len(left[2])}", file=sys.stderr, flush=True)
    total = [sum(row[column] for row in cells) for column in (1, 2)]
    cells.append((f"all {num_images}", *total))
    headers = ("images", *(f"stand after Strongest, {max_passes}" for max_passes in budgets))
    show(f"trades_mnist, Linf 0.3: {total[1] / num_images:.2%} stand", headers, cells)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
