"""A checkpoint knows which classes its net has learnt, and images of others are warned of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import pytest
from torch import nn

from touchstone.datamodules import ImagesDataModule, ImageTree
from touchstone.lightning_modules import Classifier

from .image_files import write_tree


def images(folder: Path, class_names: Sequence[str]) -> ImagesDataModule:
    return ImagesDataModule(
        ImageTree(str(write_tree(folder / "tree", class_names))), batch_size=4, cache_folder=str(folder / "cache")
    )


def trainer(folder: Path) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder, max_epochs=1, logger=False, accelerator="cpu", devices=1,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, enable_checkpointing=False,
    )  # fmt: skip


def module() -> Classifier:
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    learning = trainer(folder)
    learning.fit(module(), images(folder, ["bird", "cat", "dog"]))
    learning.save_checkpoint(folder / "learnt.ckpt")
    return folder / "learnt.ckpt"


def said_of_classes(folder: Path, checkpoint: Path, class_names: list[str]) -> list[str]:
    """The warnings of a test of the checkpoint's net on other images."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer(folder).test(module(), images(folder, class_names), ckpt_path=checkpoint, verbose=False)
    return [str(warning.message) for warning in said if "has learnt" in str(warning.message)]


@pytest.mark.parametrize(
    ("class_names", "difference"),
    [
        (["bird", "dog", "eel"], "3 classes, of which number 1 is 'cat'; of the 3 here it is 'dog'"),
        (["bird", "cat"], "3 classes, of which number 2 is 'dog'; of the 2 here it is none"),
    ],
    ids=["others", "fewer"],
)
def test_images_of_other_classes_are_warned_of(
    tmp_path: Path, checkpoint: Path, class_names: list[str], difference: str
) -> None:
    (text,) = said_of_classes(tmp_path, checkpoint, class_names)
    assert difference in text


def test_images_of_the_same_classes_are_not(tmp_path: Path, checkpoint: Path) -> None:
    assert said_of_classes(tmp_path, checkpoint, ["bird", "cat", "dog"]) == []
