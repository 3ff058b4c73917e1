"""The runs of `long_run.py`: a tiny net of each kind, its data, and the callbacks that measure it at validations.

Between them they hold every callback of `touchstone.callbacks` that works inside a fit. Those at predict alone
(`LeastVisible`, `NamedPredictions`, `Predictions`, `TargetedPictures`) do not, and `FindLearningRate` ends the run
before its first validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn

from touchstone.attacks import FGSM, PGD, Attack, EmbeddingBall, HotFlip, Linf, Surprise, TokenFlips
from touchstone.callbacks import (
    AttentionMaps,
    AugmentationGallery,
    CatastrophicOverfitting,
    DeepDream,
    Finetuning,
    InputGradients,
    PerClass,
    RecurrentJacobian,
    RobustAccuracy,
    RobustLanguage,
    RobustnessCurves,
    Saturation,
    StandardAgainstRobust,
)
from touchstone.datamodules import DigitsDataModule, TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, TransformerLM

NUM_BYTES = 256  # the tokens of a text read as bytes


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and what watches it."""

    module: pl.LightningModule
    data: pl.LightningDataModule
    callbacks: list[pl.Callback]


def images(folder: Path, pictures_every: int) -> Run:
    """A perceptron on digits, whose first layer learns from the second epoch on."""
    threat = Linf(eps=0.1)
    pgd = PGD(threat=threat, num_steps=2)
    callbacks = [
        RobustAccuracy(
            {"fgsm": FGSM(threat=threat), "pgd": pgd},
            num_images=2,
            images_every_n_epochs=pictures_every,
            warm_start=True,
            per_class=True,
        ),
        PerClass(),
        Saturation(),
        CatastrophicOverfitting(threat, num_steps=2, max_gap=0.99),
        Finetuning(train=["net.3"], unfreeze={1: ["net.1"]}),
        AugmentationGallery({"as it is": nn.Identity()}),
        InputGradients(num_images=2, every_n_epochs=pictures_every),
        RobustnessCurves(attack=pgd, eps=[0.05, 0.1], steps=[1, 2], every_n_epochs=pictures_every),
        DeepDream(["net.1"], options={"num_steps": 2}, num_pictures=1, every_n_epochs=pictures_every),
        StandardAgainstRobust(
            {"another": _perceptron()},
            attack=pgd,
            target="3",
            layers={"standard": "net.1", "another": "1"},
            options={"num_steps": 2},
            num_pictures=1,
            max_samples=2,
            every_n_epochs=pictures_every,
        ),
    ]
    module = Classifier(_perceptron(), lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    return Run(module, DigitsDataModule(batch_size=32, eval_batch_size=32), callbacks)


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def recurrent(folder: Path, pictures_every: int) -> Run:
    """A recurrent language model; its texts are attacked at every validation, and never drawn."""
    callbacks = [
        RobustLanguage(_attacks(), num_texts=0, max_samples=2),
        RecurrentJacobian(
            lags=[1, 5], num_sequences=2, num_iterations=2, every_n_epochs=pictures_every, images_every_n_epochs=1
        ),
        Saturation(),
    ]
    return Run(LanguageModel(RecurrentLM(NUM_BYTES, dim=8, hidden=8), sample_tokens=4), _text(folder), callbacks)


def attention(folder: Path, pictures_every: int) -> Run:
    """A transformer language model; its texts are attacked where they are drawn."""
    callbacks = [
        RobustLanguage(_attacks(), num_texts=2, max_samples=2, every_n_epochs=pictures_every),
        AttentionMaps(max_tokens=8, every_n_epochs=pictures_every),
    ]
    net = TransformerLM(NUM_BYTES, dim=8, num_heads=2, num_layers=1, context=16)
    return Run(LanguageModel(net, sample_tokens=4), _text(folder), callbacks)


def _attacks() -> dict[str, Attack]:
    flips = TokenFlips(2, vocab_size=NUM_BYTES)
    return {
        "flips": HotFlip(threat=flips, objective=Surprise(), num_candidates=2),
        "ball": PGD(threat=EmbeddingBall(eps=0.3), objective=Surprise(), num_steps=2),
    }


def _text(folder: Path) -> TextDataModule:
    path = folder / "text"
    path.write_text("".join(f"{number} is one more than {number - 1}. " for number in range(400)), encoding="utf-8")
    return TextDataModule(files=[str(path)], tokens="bytes", context=16, batch_size=4, token_folder=str(folder))


KINDS: dict[str, Callable[[Path, int], Run]] = {"images": images, "recurrent": recurrent, "attention": attention}
