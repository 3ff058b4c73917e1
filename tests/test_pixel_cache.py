"""The cache of decoded images: found by content, whole or not at all, whoever builds it when."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from touchstone.datamodules import ImageTree
from touchstone.datamodules.parts import pixel_cache
from touchstone.datamodules.parts.pixel_cache import Built, PixelCache
from touchstone.datamodules.sources import image_tree

from .image_files import random_pixels, write_classes

IMAGES = [(random_pixels(seed, 4).transpose(2, 0, 1), seed % 3) for seed in range(7)]


def test_what_is_written_is_read_from_a_memory_map(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "cache")
    assert cache.read() is None
    cache.write(Built(IMAGES, ["one"]))
    found = cache.read()
    assert found is not None
    x, y, skipped = found
    assert np.array_equal(x, np.stack([image for image, _ in IMAGES]))
    assert y.tolist() == [label for _, label in IMAGES]
    assert skipped == ["one"]
    x[0] = 0  # reaches nobody else
    again = cache.read()
    assert again is not None
    assert torch.equal(again[0][1:], x[1:])
    assert again[0][0].any()


def test_pictures_are_decoded_once_wherever_the_tree_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "tree", "ab", 2)
    first = ImageTree(str(root)).read("train", tmp_path / "cache")
    moved = shutil.copytree(root, tmp_path / "moved")
    monkeypatch.setattr(image_tree, "read_picture", None)
    second = ImageTree(str(moved)).read("train", tmp_path / "cache")
    assert first is not None
    assert second is not None
    assert torch.equal(first.x, second.x)


def test_another_content_is_another_cache(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 2)
    ImageTree(str(root)).read("train", tmp_path / "cache")
    Image.new("RGB", (32, 32)).save(root / "b/0.png")
    found = ImageTree(str(root)).read("train", tmp_path / "cache")
    assert found is not None
    assert not found.x[2].any()
    (root / "b/0.png").rename(root / "a/7.png")
    moved = ImageTree(str(root)).read("train", tmp_path / "cache")
    assert moved is not None
    assert moved.y.tolist() == [0, 0, 0, 1]
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("is_archive", [False, True])
def test_labels_follow_the_classes_of_training_where_the_split_itself_is_unchanged(
    tmp_path: Path, split: Any, is_archive: bool
) -> None:
    root = tmp_path / "tree"
    write_classes(root / "train", ("cat", "dog"), 2)
    write_classes(root / split, ("cat", "dog"), 2, seed=7000)

    def names() -> list[str]:
        place = root
        if is_archive:
            place = tmp_path / "tree.tar"
            with tarfile.open(place, "w") as archive:
                archive.add(root, "")
        found = ImageTree(str(place)).read(split, tmp_path / "cache")
        assert found is not None
        return [found.class_names[label] for label in found.y]

    stored = ["cat", "cat", "dog", "dog"]
    assert sorted(names()) == stored
    write_classes(root / "train", ("bird",), 2, seed=9000)  # the first of three
    assert sorted(names()) == stored
    shutil.rmtree(root / "train/bird")
    assert sorted(names()) == stored


def full_disk(after: int) -> Any:
    real, count = pixel_cache._write_all, iter(range(1000))

    def write(file: Any, image: np.ndarray) -> None:
        if next(count) == after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, image)

    return write


def test_on_a_full_disk_there_is_no_half_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "tree", "ab", 3)
    monkeypatch.setattr(pixel_cache, "_write_all", full_disk(after=4))
    with pytest.raises(OSError, match="decoded images cannot be kept in .*cache: No space left on device"):
        ImageTree(str(root)).read("train", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.undo()
    found = ImageTree(str(root)).read("train", tmp_path / "cache")
    assert found is not None
    assert len(found.y) == 6


def test_what_an_interrupted_process_left_is_not_found(tmp_path: Path) -> None:
    def stops() -> Iterator[Any]:
        yield IMAGES[0]
        raise KeyboardInterrupt

    cache = PixelCache(tmp_path / "all" / "cache")
    with pytest.raises(KeyboardInterrupt):
        cache.write(Built(stops(), []))
    assert cache.read() is None
    assert not list((tmp_path / "all").iterdir())


@pytest.mark.parametrize("left", ["all but the last byte", "half", "all but the first byte", "one byte", "nothing"])
def test_a_cache_that_has_lost_bytes_is_built_again(tmp_path: Path, left: str) -> None:
    path = tmp_path / "cache"
    cache = PixelCache(path)
    cache.write(Built(IMAGES, []))
    content = path.read_bytes()
    kept = {"all but the last byte": content[:-1], "half": content[: len(content) // 2], "one byte": content[:1]}
    path.write_bytes({**kept, "all but the first byte": content[1:]}.get(left, b""))
    assert cache.read() is None
    cache.write(Built(IMAGES, []))
    assert path.read_bytes() == content


def test_what_a_killed_process_left_is_taken_away_after_a_day(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".other.0123abcd.part", tmp_path / ".other.456789ab.part"
    for path in (dead, alive):
        path.write_bytes(b"half")
    os.utime(dead, (0, 0))
    PixelCache(tmp_path / "cache").write(Built(IMAGES, []))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.456789ab.part", "cache"]


def test_others_may_read_a_cache_as_any_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        PixelCache(tmp_path / "cache").write(Built(IMAGES, []))
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o644


def _build(path: Path, barrier: Any, failed: Any) -> None:
    try:
        for round in range(20):
            cache = PixelCache(path / str(round))
            if round % 2:
                cache.path.write_bytes(b"damaged")
            barrier.wait(60)
            for _ in range(3):
                if cache.read() is None:
                    cache.write(Built(IMAGES, []))
                found = cache.read()
                assert found is not None
                assert len(found[1]) == len(IMAGES)
            barrier.wait(60)
    except BaseException:
        failed.set()
        barrier.abort()
        raise


def test_processes_that_build_it_at_once_all_find_it_at_any_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, failed = context.Barrier(3), context.Event()
    builders = [context.Process(target=_build, args=(tmp_path, barrier, failed)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert not failed.is_set()
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 20
