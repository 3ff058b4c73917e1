"""Ways of adversarial training beside each other on digits: `python benchmarks/digits_table.py`.

Every net is that of `configs/digits_robust.yaml`, trained by its optimizer for as many steps, without looking at
validation or test: the weights after the last step are measured, on the 300 test images, inside Linf 0.15.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from statistics import mean, stdev

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
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
    "AWP + PGD-AT": lambda: AWP(PGDAT(INNER), gamma=0.01),
    "EMA + PGD-AT": lambda: PGDAT(INNER),
}


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


def accuracies(module: Classifier, data: DigitsDataModule, small: bool) -> tuple[list[float], list[str]]:
    """Percent right before any attack, after PGD-50, after the strongest attack; and the signs of masking."""
    data.setup("test")
    x, y = (part[:20] if small else part for part in data.test.tensors)
    attacks = {
        "pgd": PGD(threat=ATTACKED, num_steps=2 if small else 50, num_restarts=1 if small else 5),
        "strongest": Strongest(threat=ATTACKED),
    }
    report = evaluate(module, x, y, attacks, seed=0, probe_masking=not small)
    shares = (report.clean_correct, report.robust["pgd"], report.robust["strongest"])
    return [100 * float(share.double().mean()) for share in shares], list(report.warnings)


def main(num_seeds: int = 3, num_epochs: int = 30, num_threads: int = 1, small: bool = False) -> None:
    """Trains and attacks every net, and prints the table.

    Args:
        num_seeds: nets of each way.
        num_epochs: as long as that of the config; of Free, whose batches repeat, so many fewer.
        num_threads: threads of torch; a net this small is fastest on one.
        small: whether to shrink everything, to see that it runs.
    """
    torch.set_num_threads(num_threads)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows, signs, start = [], [], time.perf_counter()
    for name in WAYS:
        found, seconds = [], 0.0
        for seed in range(num_seeds):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seconds -= time.perf_counter()
                module, data = trained(name, seed, num_epochs)
                seconds += time.perf_counter()
                shares, warned = accuracies(module, data, small)
            found.append(shares)
            signs += [f"{name}, seed {seed}: {sign}" for sign in warned]
        columns = [f"{mean(column):.1f}{spread(column)}" for column in zip(*found, strict=True)]
        rows.append((name, *columns, f"{seconds / num_seeds:.0f}"))
    headers = ("% of 300 test images, Linf 0.15", "clean", "PGD-50, 5 restarts", "Strongest", "training, s")
    show(f"Mean over {num_seeds} seeds, and standard deviation", headers, rows)
    print(*(signs or ["no sign of gradient masking"]), sep="\n")
    print(f"{time.perf_counter() - start:.0f} s in all")


def spread(column: tuple[float, ...]) -> str:
    """The standard deviation over the seeds, where there are several."""
    return f" ± {stdev(column):.1f}" if len(column) > 1 else ""


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
