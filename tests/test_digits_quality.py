"""Figures that the configs of digits must reach: the standard net falls, the robust one stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from touchstone.attacks import (
    PGD,
    Linf,
    evaluate,
)
from touchstone.datamodules import DigitsDataModule

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
