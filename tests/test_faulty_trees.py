"""A tree of images with a fault is an error that names it."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from touchstone.datamodules import ImagesDataModule, ImageTree, PicturesDataModule

from .image_files import write_classes


def read(root: Path, tmp_path: Path, split: Any = "train", **options: Any) -> Any:
    return ImageTree(str(root), **options).read(split, tmp_path / "cache")


def test_an_empty_folder_and_one_class_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no folders of classes"):
        read(tmp_path / "empty", tmp_path)
    with pytest.raises(ValueError, match="one class, 'a'"):
        read(write_classes(tmp_path / "one", "a", 2), tmp_path)
    two = write_classes(tmp_path / "two", "ab", 2)
    for file in (two / "b").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="the folder 'b' has no pictures"):
        read(two, tmp_path)
    shutil.rmtree(two / "a")
    (two / "a").mkdir()
    with pytest.raises(ValueError, match="there are no pictures"):
        read(two, tmp_path)
    with pytest.raises(ValueError, match="there is no such folder or archive"):
        read(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_root_one_level_too_high_is_told_where_the_classes_are(tmp_path: Path, packed: bool) -> None:
    root = write_classes(tmp_path / "up" / "mine", "ab", 2).parent
    if packed:
        with tarfile.open(tmp_path / "mine.tgz", "w:gz") as archive:
            archive.add(root / "mine", "mine")
        root = tmp_path / "mine.tgz"
    with pytest.raises(ValueError, match=r"one class, 'mine', with folders of its own, as a, b: one level too high\?"):
        read(root, tmp_path)


def test_a_corrupt_picture_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 3)
    whole = (root / "b/1.png").read_bytes()
    (root / "b/1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b/1\.png cannot be read: .*corrupt: skip"):
        read(root, tmp_path)
    for _ in range(2):  # when it is decoded, and when it is found again
        with pytest.warns(UserWarning, match=r"1 of 6 pictures are left out; the first: b/1\.png"):
            found = read(root, tmp_path, corrupt="skip")
        assert found.y.tolist() == [0, 0, 0, 1, 1]


def test_what_cannot_be_opened_is_a_corrupt_picture(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 3)
    (root / "a/7.png").symlink_to("nowhere.png")
    os.mkfifo(root / "b/8.png")  # which a reader waits for
    with pytest.raises(ValueError, match=r"a/7\.png cannot be read: No such file; corrupt: skip"):
        read(root, tmp_path)
    with pytest.warns(UserWarning, match=r"2 of 8 pictures are left out; the first: a/7\.png: No such file"):
        assert read(root, tmp_path, corrupt="skip").y.tolist() == [0, 0, 0, 1, 1, 1]


def test_links_to_folders_are_followed_and_lead_nowhere_twice(tmp_path: Path) -> None:
    root, elsewhere = write_classes(tmp_path / "tree", "ab", 2), write_classes(tmp_path / "elsewhere", "cd", 2)
    (root / "c").symlink_to(elsewhere / "c")
    (elsewhere / "c/more").symlink_to(elsewhere / "d")
    (root / "e").symlink_to(elsewhere / "d")
    for loop in ("loop", "a/loop", "a/above"):
        (root / loop).symlink_to({"a/above": ".."}.get(loop, "."))
    (elsewhere / "d/back").symlink_to(root)
    assert read(root, tmp_path).y.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert [str(file.relative_to(root)) for file in PicturesDataModule(str(root)).files] == [
        *("a/0.png", "a/1.png", "b/0.png", "b/1.png"),
        *("c/0.png", "c/1.png", "c/more/0.png", "c/more/1.png", "e/0.png", "e/1.png"),
    ]


def test_other_files_are_no_pictures(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 3)
    for name in ("a/Thumbs.db", "a/._0.png", "labels.txt", "stray.png"):
        (root / name).write_bytes(b"something else")
    assert len(read(root, tmp_path).y) == 6


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_lacks_is_an_error(tmp_path: Path, split: str) -> None:
    root = tmp_path / "tree"
    write_classes(root / "train", "ab", 2)
    write_classes(root / split, "bc", 2)
    with pytest.raises(ValueError, match=f"{split}/ has the class 'c', which train/ lacks"):
        read(root, tmp_path, split)


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 2)
    Image.new("RGB", (40, 20), (9, 9, 9)).save(root / "b/9.png")
    with pytest.raises(ValueError, match=r"b/9\.png has 40 x 20 pixels and a/0\.png 32 x 32: set a size"):
        read(root, tmp_path)
    assert read(root, tmp_path, size=16).x.shape == (5, 3, 16, 16)


def test_grey_pictures_become_colours_and_colours_grey(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 2)
    Image.new("L", (32, 32), 77).save(root / "a/0.png")
    assert (read(root, tmp_path).x[0] == 77).all()
    assert read(root, tmp_path, grey=True).x.shape == (4, 1, 32, 32)


@pytest.mark.parametrize("num_images", [1, 2])
def test_a_class_with_too_few_images_cannot_be_divided(tmp_path: Path, num_images: int) -> None:
    """Training, validation and test need one each."""
    root = write_classes(tmp_path / "tree", "ab", 3)
    for number in range(num_images, 3):
        (root / f"b/{number}.png").unlink()
    with pytest.raises(ValueError, match="the class 'b' has too few images for every split to have one"):
        ImagesDataModule(ImageTree(str(root)), cache_folder=str(tmp_path)).setup("fit")
