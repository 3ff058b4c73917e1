"""A tiny experiment for tests of the command line; the fixture `run` calls it as from a shell."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import train

ROOT = Path(train.__file__).parent
DIGITS = ROOT / "configs" / "digits.yaml"
NARROW = "--model.net.width=4"  # of the digits net, where what it reaches does not count
LINF: dict[str, Any] = {"class_path": "touchstone.attacks.Linf", "init_args": {"eps": 0.15}}
TINY: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "limit_train_batches": 2,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "logs", "name": "tiny", "default_hp_metric": False},
        },
        "callbacks": [
            {
                "class_path": "touchstone.callbacks.RobustAccuracy",
                "init_args": {
                    "attacks": {"fgsm": {"class_path": "touchstone.attacks.FGSM", "init_args": {"threat": LINF}}},
                    "max_samples": 20,
                    "num_images": 0,
                },
            },
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "val/accuracy", "mode": "max", "filename": "best"},
            },
        ],
    },
    "model": {
        "class_path": "touchstone.lightning_modules.Classifier",
        "init_args": {
            "net": {"class_path": "touchstone.nets.SmallCNN", "init_args": {"width": 4, "hidden": 8}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
        },
    },
    "data": {"class_path": "touchstone.datamodules.DigitsDataModule"},
}
ATTACK = ("trainer", "callbacks", 0, "init_args", "attacks", "fgsm")  # the place of its attack
RUN = "logs/tiny/version_0"
BEST = f"{RUN}/checkpoints/best.ckpt"

SHORT = [  # a fit of two steps
    "--trainer.log_every_n_steps=1",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
]
after_two_steps = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # of training, PGD may well be beaten

Config = Any
Fits = Callable[..., Path]  # the fixture `fits`


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def first_line(self) -> str:
        return self.err.splitlines()[0]


def write(config: Config, name: str = "tiny.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return name


def fitted_in(folder: Path, config: Config) -> Path:
    """The folder, in which this config was fitted."""
    with pytest.MonkeyPatch.context() as place:
        place.chdir(folder)
        assert train.main(["fit", "--config", write(config)]) == 0
    return folder


def with_value(value: Any, *keys: str | int) -> Config:
    """The tiny config with another value at a key; the last key may be new."""
    config = copy.deepcopy(TINY)
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return config


def edited(path: Path, **changes: Any) -> None:
    """Forges values of a report; the names are ways into it, with two underscores between the steps."""
    report = json.loads(path.read_text())
    for way, value in changes.items():
        inner = report
        *steps, last = way.split("__")
        for step in steps:
            inner = inner[step]
        inner[last] = value
    path.write_text(json.dumps(report))


def line_of(text: str, name: str = "tiny.yaml") -> int:
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def given(*configs: str) -> list[str]:
    """The options that name configs of the project."""
    return [option for config in configs for option in ("--config", str(ROOT / "configs" / config))]


def slow_where(is_slow: Callable[[str], bool], names: list[str]) -> list[Any]:
    """The parameters of a test, of which some are slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if is_slow(name) else name for name in names]
