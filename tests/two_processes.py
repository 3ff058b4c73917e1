"""Evaluations in one process and in two, for `test_distributed.py`: `python -m tests.two_processes FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

from touchstone.attacks import (
    FGSM,
    PGD,
    Attack,
    HotFlip,
    L1Adam,
    Linf,
    RandomNoise,
    Surprise,
    Surrogate,
    TokenFlips,
    Universal,
)
from touchstone.callbacks import (
    ExactResume,
    GradientNorm,
    Health,
    LeastVisible,
    NamedPredictions,
    Predictions,
    RobustAccuracy,
    RobustLanguage,
    RobustnessCurves,
    TargetedPictures,
)
from touchstone.datamodules import PicturesDataModule, TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.lightning_modules.adversarial_training import PGDAT, Free
from touchstone.nets import RecurrentLM

from .lightning_programs import Still, samples, train_loader, trainer
from .masking_nets import Shattered
from .oracles import small_net
from .picture_folders import Classes
from .tokens_table import NUM_CLASSES, NUM_TOKENS, text_net, texts

LINF = Linf(eps=0.02)
ATTACKS: dict[str, Attack] = {
    "noise": RandomNoise(threat=LINF),
    "pgd": PGD(threat=LINF, num_steps=5),
    "fgsm": FGSM(threat=LINF),
}
LEARNING = {"universal": Universal(threat=LINF), "surrogate": Surrogate(threat=LINF, net=small_net(1), num_queries=90)}
X, Y = samples(41, seed=3).tensors
DATA = TensorDataset(X, torch.where(torch.arange(41) % 5 == 0, (Y + 1) % 4, Y))  # some that the net is wrong on


class SplitByHand(pl.LightningDataModule):
    """Every process has a part of its own: 21 and 20 samples."""

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(Subset(DATA, range(self.trainer.global_rank, 41, self.trainer.world_size)), 8)


class WithTraining(pl.LightningDataModule):
    """What a validation by itself may prepare attacks on."""

    def train_dataloader(self) -> DataLoader:
        return train_loader()

    def val_dataloader(self) -> DataLoader:
        return loader()


def loader() -> DataLoader:
    return DataLoader(DATA, 8)


def ordinary(folder: Path, num_processes: int) -> pl.Trainer:
    run = observed(folder, num_processes, curves(), num_images=2)
    run.validate(Classifier(small_net(7)), loader(), verbose=False)
    return run


def learned(folder: Path, num_processes: int) -> pl.Trainer:
    """Attacks that learn: every process prepares them for itself."""
    run = observed(folder, num_processes, attacks=LEARNING)
    run.validate(Classifier(small_net(7)), datamodule=WithTraining(), verbose=False)
    return run


def one_sample(folder: Path, num_processes: int) -> pl.Trainer:
    """The second process has none."""
    run = observed(folder, num_processes, curves(max_samples=1), max_samples=1)
    run.validate(Classifier(small_net(7)), loader(), verbose=False)
    return run


def masked(folder: Path, num_processes: int) -> pl.Trainer:
    """A net that shows signs of masking."""
    run = observed(folder, num_processes)
    run.validate(Classifier(Shattered(small_net(7))), loader(), verbose=False)
    return run


def split_by_hand(folder: Path, num_processes: int) -> pl.Trainer:
    run = observed(folder, num_processes, use_distributed_sampler=False)
    run.validate(Classifier(small_net(7)), datamodule=SplitByHand(), verbose=False)
    return run


def fit(folder: Path, num_processes: int) -> pl.Trainer:
    torch.manual_seed(0)
    run = observed(folder, num_processes, max_epochs=1)
    run.fit(Classifier(small_net(7)), train_loader(), loader())
    return run


def warm(folder: Path, num_processes: int) -> pl.Trainer:
    """The second validation knows of the first."""
    return fit_warm(folder, num_processes, max_epochs=2)


def moved(folder: Path, num_processes: int) -> pl.Trainer:
    """Goes on with a fit on another number of processes, so that samples are other processes' than before."""
    other = folder.parent.parent / "warm" / str(3 - num_processes) / "a.ckpt"
    return fit_warm(folder, num_processes, max_epochs=3, ckpt_path=other)


def fit_warm(folder: Path, num_processes: int, max_epochs: int, ckpt_path: Path | None = None) -> pl.Trainer:
    run = trainer(
        folder,
        RobustAccuracy(ATTACKS, warm_start=True, num_images=0),
        ModelCheckpoint(dirpath=folder, filename="a", save_on_train_epoch_end=False),
        enable_checkpointing=True,
        max_epochs=max_epochs,
        **processes(folder, num_processes),
    )
    run.fit(Still(), train_loader(), loader(), ckpt_path=ckpt_path, weights_only=True)
    return run


def trained(folder: Path, num_processes: int) -> pl.Trainer:
    """Learns from attacked images on two processes, and is measured by one: the same net on the same samples."""
    if num_processes == 1:
        run = observed(folder, 1)
        run.validate(Classifier(small_net(7)), loader(), ckpt_path=folder.parent / "2" / "a.ckpt", verbose=False)
        return run
    torch.manual_seed(0)
    run = observed(folder, num_processes, max_epochs=2)
    odd = DataLoader(samples(41, seed=1), 8, shuffle=True)
    run.fit(Classifier(small_net(7), strategy=PGDAT(ATTACKS["pgd"])), odd, loader())
    run.save_checkpoint(folder / "a.ckpt")
    return run


def texts_by_class(folder: Path, num_processes: int) -> pl.Trainer:
    x = texts(41)
    threat = TokenFlips(1, vocab_size=NUM_TOKENS, protected=(0,))
    run = trainer(folder, RobustAccuracy({"flips": HotFlip(threat=threat)}), **processes(folder, num_processes))
    data = TensorDataset(x, torch.arange(41) % NUM_CLASSES)
    run.validate(Classifier(text_net()), DataLoader(data, 8), verbose=False)
    return run


def language(folder: Path, num_processes: int) -> pl.Trainer:
    torch.manual_seed(0)
    module = LanguageModel(RecurrentLM(NUM_TOKENS, cell="gru", dim=8, hidden=16), sample_tokens=0)
    attacks: dict[str, Attack] = {"hot": HotFlip(threat=TokenFlips(1, vocab_size=NUM_TOKENS), objective=Surprise())}
    run = trainer(folder, RobustLanguage(attacks), **processes(folder, num_processes))
    x = texts(41)
    run.validate(module, DataLoader(TensorDataset(x[:, :-1], x[:, 1:]), 8), verbose=False)
    return run


def predicted(folder: Path, num_processes: int) -> pl.Trainer:
    run = trainer(folder, Predictions(top_k=2), **processes(folder, num_processes))
    run.predict(Classifier(small_net(7)), loader(), return_predictions=False)
    return run


def pictures(folder: Path, num_processes: int) -> pl.Trainer:
    """Five of them, and two files that are none."""
    place = folder.parent / "pictures"
    if not place.exists():
        place.mkdir(parents=True)
        for number in range(7):
            Image.new("RGB", (16, 16), (40 * number, 120, 60)).save(place / f"{number}.png")
        for number in (0, 3):
            (place / f"{number}.png").write_bytes(b"")
    attacks: dict[str, Attack] = {"fgsm": FGSM(threat=LINF), "pgd": PGD(threat=LINF, num_steps=3)}
    targeted = TargetedPictures(1, attacks=attacks)
    smallest = LeastVisible([0, 1], attack=L1Adam(threat=Linf(eps=1), penalty=0.1, num_steps=5), num_pictures=3)
    callbacks = (NamedPredictions(labelled=False), targeted, smallest)
    run = trainer(folder, *callbacks, **processes(folder, num_processes))
    data = PicturesDataModule(str(place), image_size=16, resize=16, batch_size=2, class_names=["a", "b", "c"])
    run.predict(Classes(), data, return_predictions=False)
    return run


def whole(folder: Path, num_processes: int) -> pl.Trainer:
    """Two epochs of three batches; changes of images of its own on each process."""
    return fit_free(folder, num_processes)


def resumed(folder: Path, num_processes: int) -> pl.Trainer:
    """Goes on after the second of them."""
    return fit_free(folder, num_processes, folder.parent.parent / "whole" / str(num_processes) / "step=5.ckpt")


def fit_free(folder: Path, num_processes: int, ckpt_path: Path | None = None) -> pl.Trainer:
    torch.manual_seed(0)
    every = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    end = ModelCheckpoint(dirpath=folder, filename="end", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks = (RobustAccuracy(ATTACKS, warm_start=True, num_images=0), Health(), ExactResume(), every, end)
    options = {"enable_checkpointing": True, "num_sanity_val_steps": 0, **processes(folder, num_processes)}
    run = trainer(folder, *callbacks, **options)
    odd = DataLoader(samples(41, seed=1), 8, shuffle=True)
    module = Classifier(small_net(7), strategy=Free(LINF, num_repeats=2))
    run.fit(module, odd, loader(), ckpt_path=ckpt_path, weights_only=True)
    return run


def windows(folder: Path, num_processes: int) -> pl.Trainer:
    """Two epochs of six batches of windows from anywhere in a text, three for each process."""
    return fit_windows(folder, num_processes)


def resumed_windows(folder: Path, num_processes: int) -> pl.Trainer:
    """Goes on in the middle of the second of them."""
    return fit_windows(folder, num_processes, folder.parent.parent / "windows" / str(num_processes) / "step=4.ckpt")


def fit_windows(folder: Path, num_processes: int, ckpt_path: Path | None = None) -> pl.Trainer:
    text = folder.parent.parent / "text.txt"
    if not text.exists():
        text.write_text("A text of some windows. " * 40)
    torch.manual_seed(0)
    every = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"enable_checkpointing": True, "num_sanity_val_steps": 0, **processes(folder, num_processes)}
    run = trainer(folder, ExactResume(), every, **options)
    data = TextDataModule(
        files=[str(text)], tokens="bytes", context=8, batch_size=4, steps_per_epoch=6, token_folder=str(text.parent)
    )
    module = LanguageModel(RecurrentLM(256, cell="gru", dim=8, hidden=16), sample_tokens=5)
    run.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return run


def processes(folder: Path, num_processes: int) -> dict[str, Any]:
    return {
        "devices": num_processes,
        "strategy": "auto" if num_processes == 1 else "ddp_fork",
        "logger": TensorBoardLogger(folder, name="", version=0, default_hp_metric=False),
    }


def observed(
    folder: Path,
    num_processes: int,
    *others: pl.Callback,
    max_samples: int | None = None,
    attacks: dict[str, Attack] = ATTACKS,
    num_images: int = 0,
    **options: Any,
) -> pl.Trainer:
    return trainer(
        folder,
        RobustAccuracy(attacks, max_samples=max_samples, num_images=num_images),
        GradientNorm(max_samples=max_samples),
        *others,
        **processes(folder, num_processes),
        **options,
    )


def curves(max_samples: int | None = None) -> RobustnessCurves:
    return RobustnessCurves(attack=ATTACKS["pgd"], eps=[0.01, 0.02], steps=[1, 5], max_samples=max_samples)


PROGRAMS = {
    ordinary: (1, 2),
    learned: (1, 2),
    one_sample: (1, 2),
    masked: (1, 2),
    split_by_hand: (2,),
    fit: (2,),
    warm: (1, 2),
    moved: (1, 2),
    trained: (2, 1),
    texts_by_class: (1, 2),
    language: (1, 2),
    predicted: (1, 2),
    pictures: (1, 2),
    whole: (2,),
    resumed: (2,),
    windows: (1, 2),
    resumed_windows: (2,),
}

if __name__ == "__main__":
    for program, numbers in PROGRAMS.items():
        for num_processes in numbers:
            folder = Path(sys.argv[1]) / program.__name__ / str(num_processes)
            figures = program(folder, num_processes).callback_metrics
            (folder / "figures.json").write_text(json.dumps({tag: float(value) for tag, value in figures.items()}))
