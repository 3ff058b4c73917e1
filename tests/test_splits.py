"""What a source has for validation and test is as its training images are, and bears a name by which it is found."""

from __future__ import annotations

import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from touchstone.datamodules import ImagesDataModule, ImageTree, NpzImages
from touchstone.datamodules.parts.read_picture import read_picture
from touchstone.datamodules.sources import Source, image_tree

from .image_files import write_classes, write_tree


def set_up(source: Source, tmp_path: Path, stage: str, **options: Any) -> ImagesDataModule:
    data = ImagesDataModule(source, cache_folder=str(tmp_path / "cache"), **options)
    data.setup(stage)
    return data


@pytest.mark.parametrize(
    ("split", "stage"), [("val", "fit"), ("val", "validate"), ("test", "test"), ("test", "predict")]
)
@pytest.mark.parametrize("has_archive", [False, True])
def test_a_split_of_another_size_is_an_error_before_a_net_sees_it(
    tmp_path: Path, split: str, stage: str, has_archive: bool
) -> None:
    root = place = tmp_path / "tree"
    write_classes(root / "train", "ab", 3, side=16)
    write_classes(root / split, "ab", 2, side=24)
    (root / "train/a/0.png").write_bytes(b"no picture")
    if has_archive:
        place = tmp_path / "tree.tar.gz"
        with tarfile.open(place, "w:gz") as archive:
            archive.add(root, "")
    skip: dict[str, Any] = {"corrupt": "skip"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 6 pictures are left out")
        message = rf"of one shape .*, got \(3, 24, 24\) in {split} and \(3, 16, 16\) in train; `size` of ImageTree"
        with pytest.raises(ValueError, match=message):
            set_up(ImageTree(str(place), **skip), tmp_path, stage)
        data = set_up(ImageTree(str(place), size=20, **skip), tmp_path, stage)
    assert getattr(data, split)[0][0].shape == (3, 20, 20)


def arrays(folder: Path, of_train: tuple[int, ...], split: str, of_split: tuple[int, ...]) -> NpzImages:
    y = np.arange(4) % 2
    given = {"x_train": np.zeros(of_train, np.uint8), f"x_{split}": np.zeros(of_split, np.uint8)}
    np.savez(folder / "images.npz", **given, **{"y_train": y, f"y_{split}": y})  # type: ignore[arg-type]
    return NpzImages(str(folder / "images.npz"))


@pytest.mark.parametrize(("split", "stage"), [("val", "fit"), ("test", "test")])
def test_arrays_of_grey_beside_arrays_of_colours_are_an_error_that_names_the_remedy(
    tmp_path: Path, split: str, stage: str
) -> None:
    source = arrays(tmp_path, (4, 8, 8), split, (4, 8, 8, 3))
    with pytest.raises(ValueError, match=rf"\(3, 8, 8\) in {split} and \(1, 8, 8\) in train; `channels: 3` converts"):
        set_up(source, tmp_path, stage)
    for channels in (1, 3):
        set_up(source, tmp_path, stage, channels=channels)
    larger = arrays(tmp_path, (4, 8, 8), split, (4, 9, 8))
    with pytest.raises(ValueError, match=rf"\(1, 9, 8\) in {split} and \(1, 8, 8\) in train"):
        set_up(larger, tmp_path, stage)


def test_a_test_decodes_one_picture_of_the_training_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, read = write_tree(tmp_path / "tree", "ab", num_test=2), []

    def reading(path: Path, **options: Any) -> Image.Image:
        read.append(path.relative_to(root).parts[0])
        return read_picture(path, **options)

    monkeypatch.setattr(image_tree, "read_picture", reading)
    set_up(ImageTree(str(root)), tmp_path, "test")
    assert sorted(read) == ["test"] * 4 + ["train"]


@pytest.mark.parametrize(
    ("folder", "meant"),
    [("valid", "val"), ("validation", "val"), ("validaton", "val"), ("Val", "val"), ("dev", "val"), ("Test", "test"),
     ("testing", "test")],
)  # fmt: skip
@pytest.mark.parametrize("has_archive", [False, True])
def test_a_folder_that_is_meant_as_a_split_is_named_with_the_name_it_must_have(
    tmp_path: Path, folder: str, meant: str, has_archive: bool
) -> None:
    root = place = tmp_path / "tree"
    write_classes(root / "train", "ab", 3)
    write_classes(root / folder, "ab", 2)
    if has_archive:
        place = tmp_path / "tree.tar"
        with tarfile.open(place, "w") as archive:
            archive.add(root, "")
    with pytest.raises(ValueError, match=rf"ImageTree.*: {folder}/ would not be read .* the nearest is {meant}/"):
        set_up(ImageTree(str(place)), tmp_path, "fit")


def test_splits_beside_no_train_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "tree/Train", "ab", 3)
    write_classes(tmp_path / "tree/test", "ab", 3)
    with pytest.raises(ValueError, match=r"Train/ would not be read .* the nearest is train/"):
        set_up(ImageTree(str(tmp_path / "tree")), tmp_path, "fit")


def test_other_folders_beside_the_splits_are_left_alone(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", "ab")
    write_classes(root / "val", "ab", 2)
    for folder in ("valid", "tests", "test_hard", "val_2019", "unlabelled"):  # of val and test there are the true ones
        write_classes(root / folder, "ab", 1)
    assert len(set_up(ImageTree(str(root)), tmp_path, "fit").val) == 4
    for folder in ("val", "valid", "test", "tests"):
        (root / folder).rename(tmp_path / folder)
    (root / "eval/of_last_week").mkdir(parents=True)  # no class
    assert len(set_up(ImageTree(str(root)), tmp_path, "fit").train) == 8


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    names = ("dev", "rain", "snow", "testing", "training")
    root = write_classes(tmp_path / "tree", names, 5)
    for name in names:
        (root / name / "2019").mkdir()
    assert set_up(ImageTree(str(root)), tmp_path, "fit").class_names == names
