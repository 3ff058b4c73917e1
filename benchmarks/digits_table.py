"""Ways of adversarial training beside each other on digits: `python benchmarks/digits_table.py`.

Every net is that of `configs/digits_robust.yaml`, trained by its optimizer for as many steps, without looking at
validation or test: the weights after the last step are measured, on the 300 test images, inside Linf 0.15. Each net is
trained and attacked in one thread, several of them at a time.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import mean, stdev

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from matplotlib.figure import Figure
from timing import show

from touchstone.attacks import PGD, Linf, Strongest, evaluate
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import AWP, FGSMRS, MART, PGDAT, TRADES, Classifier, Free, Strategy
from touchstone.nets import SmallCNN

TRAINED, ATTACKED = Linf(eps=0.18), Linf(eps=0.15)  # trained a little beyond, as in the config
INNER = PGD(threat=TRAINED, num_steps=7, to_the_end=True)
NUM_REPEATS = 5
WAYS: dict[str, Callable[[], Strategy]] = {
    "standard": Strategy,
    "PGD-AT": lambda: PGDAT(INNER),
    "TRADES": lambda: TRADES(PGD(threat=TRAINED, num_steps=7, start_std=0.001), beta=6.0),
    "MART": lambda: MART(INNER),
    "Free": lambda: Free(TRAINED, num_repeats=NUM_REPEATS),
    "FGSM-RS": lambda: FGSMRS(TRAINED),
    "AWP + PGD-AT": lambda: AWP(PGDAT(INNER), gamma=0.003),  # as configs/strategies/awp.yaml
    "EMA + PGD-AT": lambda: PGDAT(INNER),
}

MEASURES = ("clean", "PGD-50, 5 restarts", "Strongest")


@dataclass(frozen=True)
class Found:
    """What one net gave.

    Attributes:
        shares: percent right, by `MEASURES`.
        signs: of gradient masking.
        training: CPU seconds.
        attacks: CPU seconds.
    """

    shares: tuple[float, ...]
    signs: tuple[str, ...]
    training: float
    attacks: float


def trained(name: str, seed: int, num_epochs: int) -> tuple[Classifier, DigitsDataModule]:
    """A net after its training, and the data."""
    pl.seed_everything(seed, verbose=False)
    strategy = WAYS[name]()
    num_epochs //= strategy.num_repeats if num_epochs > strategy.num_repeats else 1
    module = Classifier(
        SmallCNN(width=32),
        lambda p: torch.optim.AdamW(p, lr=0.005, weight_decay=0.1),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_epochs),
        label_smoothing=0.1,
        strategy=strategy,
    )
    data = DigitsDataModule()
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        callbacks=[EMAWeightAveraging(decay=0.98)] if name.startswith("EMA") else [],
        accelerator="cpu",
        devices=1,
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, data)
    return module.eval(), data


def measured(name: str, seed: int, num_epochs: int, small: bool) -> Found:
    """Trains a net and attacks it, in one thread."""
    torch.set_num_threads(1)  # a net this small is fastest so
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        module, data = trained(name, seed, num_epochs)
        between = time.process_time()
        data.setup("test")
        x, y = (part[:20] if small else part for part in data.test.tensors)
        attacks = {
            "pgd": PGD(threat=ATTACKED, num_steps=2 if small else 50, num_restarts=1 if small else 5),
            "strongest": Strongest(threat=ATTACKED),
        }
        report = evaluate(module, x, y, attacks, seed=0, probe_masking=not small)
    right = (report.clean_correct, report.robust["pgd"], report.robust["strongest"])
    shares = tuple(100 * float(share.double().mean()) for share in right)
    signs = tuple(f"{name}, seed {seed}: {sign}" for sign in report.warnings)
    return Found(shares, signs, between - start, time.process_time() - between)


def draw(columns: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Bars of the means, with the standard deviation on them.

    Args:
        columns: of each way its mean and standard deviation, by `MEASURES`.
        path: where to.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, measure in enumerate(MEASURES):
        places = [row + 0.27 * (number - 1) for row in range(len(columns))]
        means, deviations = zip(*(of_way[number] for of_way in columns.values()), strict=True)
        axes.bar(places, means, yerr=deviations, width=0.25, label=measure, alpha=0.7, capsize=2)
    axes.set_xticks(range(len(columns)), list(columns), fontsize=8)
    axes.set(ylabel="% of 300 test images", ylim=(0, 105), title="Digits, attacked inside Linf 0.15")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    num_seeds: int = 3,
    num_epochs: int = 30,
    num_processes: int = 2,
    picture: str = "logs/digits_table.png",
    ways: Sequence[str] = tuple(WAYS),
    small: bool = False,
) -> None:
    """Trains and attacks every net, prints the table and draws it.

    Args:
        num_seeds: nets of each way.
        num_epochs: as long as that of the config; of Free, whose batches repeat, so many fewer.
        num_processes: nets that are trained and attacked at a time, each in one thread.
        picture: where to draw it.
        ways: some of those that there are, by name.
        small: whether to shrink everything, to see that it runs.
    """
    start = time.perf_counter()
    jobs = [(name, seed) for name in ways for seed in range(num_seeds)]
    names, seeds = zip(*jobs, strict=True)
    options = (names, seeds, repeat(num_epochs), repeat(small))
    if num_processes == 1:
        results = list(map(measured, *options))
    else:
        with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
            results = list(pool.map(measured, *options))
    found: dict[str, list[Found]] = {name: [] for name in ways}
    for name, of_net in zip(names, results, strict=True):
        found[name].append(of_net)
    columns = {
        name: [summed_up(shares) for shares in zip(*(net.shares for net in of_way), strict=True)]
        for name, of_way in found.items()
    }
    rows = [
        (name, *(f"{m:.1f} ± {s:.1f}" for m, s in columns[name]), f"{mean(net.training for net in of_way):.0f}")
        for name, of_way in found.items()
    ]
    headers = ("% of 300 test images, Linf 0.15", *MEASURES, "training, CPU s")
    show(f"Mean over {num_seeds} seeds, and standard deviation", headers, rows)
    draw(columns, Path(picture))
    print(*([sign for of_net in results for sign in of_net.signs] or ["no sign of gradient masking"]), sep="\n")
    cpu = sum(of_net.training + of_net.attacks for of_net in results)
    print(f"{time.perf_counter() - start:.0f} s in all, {num_processes} nets at a time; {cpu:.0f} CPU s")


def summed_up(shares: Sequence[float]) -> tuple[float, float]:
    """The mean over the seeds, and the standard deviation where there are several."""
    return mean(shares), stdev(shares) if len(shares) > 1 else 0.0


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
