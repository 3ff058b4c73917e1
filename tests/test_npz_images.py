"""Arrays of every layout in files of numpy are read, and what are no images is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from touchstone.datamodules import ImagesDataModule, NpzImages

from .image_files import npz


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
def test_arrays_of_every_layout_are_read(tmp_path: Path, layout: str) -> None:
    x = np.random.default_rng(1).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    given = {"NHW": x[:, 0], "NHWC": x.transpose(0, 2, 3, 1), "NCHW": x}[layout]
    read = NpzImages(npz(tmp_path, x_train=given)).read("train", tmp_path)
    assert read is not None
    assert np.array_equal(read.x, x[:, :1] if layout == "NHW" else x)
    assert read.y.tolist() == [i % 3 for i in range(30)]


def test_arrays_in_files_of_their_own_and_for_a_test_alone_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.array([[0], [1], [2], [2]]))
    data = ImagesDataModule(NpzImages(test=str(tmp_path / "a.npz"), class_names=["a", "b", "c"]))
    data.setup("test")
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (4, 3, 8, 8)
    assert y.tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match="has no images for training"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((30, 8, 8))}, "images must be bytes, uint8, got float64"),
        ({"x_train": np.zeros((30, 8, 8, 2), np.uint8)}, "with 1 or 3 channels"),
        ({"y_train": np.zeros(30, int)}, "two classes or more, got 0 alone"),
        ({"y_train": np.full(30, 3)}, r"two classes or more, got 3 alone"),
        ({"y_train": np.full(30, 2), "y_test": np.full(6, 2)}, r"two classes or more, got 2 alone"),
        ({"x_val": np.zeros((2, 8, 8), np.uint8), "y_val": [0, 7]}, "val has the class 7, which train lacks"),
        ({"y_train": np.arange(30) % 2}, "test has the class 2, which train lacks"),
        ({"y_train": np.zeros(30)}, "classes must be integers"),
        ({"y_train": np.arange(30) % 3 - 1}, r"classes must be integers >= 0, one for each image, got -1"),
        ({"y_train": np.arange(29) % 3}, "30 images and 29 classes"),
        ({"y_train": np.array([None] * 30)}, "allow_pickle=False"),
    ],
)
def test_arrays_that_are_no_images_are_an_error(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    source = NpzImages(npz(tmp_path, **arrays))
    with pytest.raises(ValueError, match=message):
        [source.read(split, tmp_path) for split in ("train", "val", "test")]  # type: ignore[arg-type]


def test_images_of_one_class_can_be_tested_alone_where_training_has_others(tmp_path: Path) -> None:
    x, y = np.zeros((4, 8, 8), np.uint8), np.full(4, 3)
    np.savez(tmp_path / "threes.npz", x=x, y=y)
    np.savez(tmp_path / "all.npz", x=x, y=np.arange(4))
    for train in (None, str(tmp_path / "all.npz")):
        read = NpzImages(train, test=str(tmp_path / "threes.npz")).read("test", tmp_path)
        assert read is not None
        assert read.y.tolist() == [3, 3, 3, 3]
        assert read.class_names == ("0", "1", "2", "3")


def test_a_file_that_is_cut_off_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = Path(npz(tmp_path))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"images\.npz"):
        NpzImages(str(path)).read("train", tmp_path)
