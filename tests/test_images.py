"""Images of every source arrive whole, divided by class and seed, and the test's are left alone until the test."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from touchstone.datamodules import ImagesDataModule, ImageTree, NpzImages, TorchvisionImages
from touchstone.datamodules.augmentations import EachImage, RandomFlip
from touchstone.datamodules.parts.stratified import stratified
from touchstone.datamodules.parts.whole_batches import Rows, whole_batches
from touchstone.lightning_modules import Classifier

from .image_files import TEN, random_pixels, write_classes, write_tree


def module(root: Path, tmp_path: Path, **options: Any) -> ImagesDataModule:
    return ImagesDataModule(ImageTree(str(root)), cache_folder=str(tmp_path / "cache"), **options)


def test_a_tree_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = write_tree(tmp_path / "tree")
    for split in ("train", "test"):
        read = ImageTree(str(root)).read(split, tmp_path / "cache")  # type: ignore[arg-type]
        expected = ImageFolder(str(root / split))
        assert read is not None
        assert list(read.class_names) == expected.classes
        order = sorted(range(len(expected)), key=lambda i, e=expected: e.samples[i][0])
        assert read.y.tolist() == [expected.samples[i][1] for i in order]
        for row, i in enumerate(order):
            assert np.array_equal(read.x[row].permute(1, 2, 0), np.asarray(expected[i][0]))


def test_an_archive_is_read_as_the_folder_that_it_unpacks_to(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as archive:
        archive.add(root, "", filter=lambda member: member)
    for split in ("train", "test"):
        a, b = (
            ImageTree(str(place)).read(split, tmp_path / "cache")  # type: ignore[arg-type]
            for place in (root, tmp_path / "tree.tar.gz")
        )
        assert a is not None
        assert b is not None
        rows_a, rows_b = ({image.numpy().tobytes(): int(y) for image, y in zip(s.x, s.y, strict=True)} for s in (a, b))
        assert rows_a == rows_b
        assert a.class_names == b.class_names


@pytest.mark.parametrize(("size", "share"), [(10, 0.3), (2, 0.01), (5, 0.5)])
def test_of_every_class_the_same_share_is_taken(size: int, share: float) -> None:
    y = torch.arange(4).repeat(size)[torch.randperm(4 * size)]
    left, taken = stratified(y, share, 0, "abcd")
    assert sorted([*left.tolist(), *taken.tolist()]) == list(range(4 * size))
    assert y[taken].bincount(minlength=4).tolist() == [max(1, round(share * size))] * 4
    again, other = stratified(y, share, 0, "abcd")[1], stratified(y, share, 1, "abcd")[1]
    assert torch.equal(taken, again)
    assert not torch.equal(taken, other)


class Seen(pl.Callback):
    """Keeps the images that steps have seen."""

    def __init__(self) -> None:
        self.of: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}

    def on_train_batch_end(self, t: Any, m: Any, outputs: STEP_OUTPUT, batch: Any, batch_idx: int) -> None:
        self.of["train"].append(batch[0])

    def on_validation_batch_end(self, t: Any, m: Any, o: Any, batch: Any, batch_idx: int, loader: int = 0) -> None:
        self.of["val"].append(batch[0])

    def on_test_batch_end(self, t: Any, m: Any, o: Any, batch: Any, batch_idx: int, loader: int = 0) -> None:
        self.of["test"].append(batch[0])

    def images(self, stage: str) -> set[bytes]:
        return {(255 * image).round().byte().numpy().tobytes() for image in torch.cat(self.of[stage])}


def trainer(tmp_path: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu", devices=1,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
        **options,
    )  # fmt: skip


def linear_net(num_values: int = 3 * 32 * 32, num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(num_values, num_classes))


def test_training_validation_and_test_share_no_image_and_miss_none(tmp_path: Path) -> None:
    root, seen = write_tree(tmp_path / "tree"), Seen()
    data = module(root, tmp_path, batch_size=10, val_share=0.17)
    running = trainer(tmp_path, seen)
    running.fit(Classifier(linear_net()), data)
    running.test(Classifier(linear_net()), data, verbose=False)
    files = {split: list((root / split).rglob("*.png")) for split in ("train", "test")}
    stored = {
        split: {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in paths}
        for split, paths in files.items()
    }
    assert len(seen.images("val")) == 10
    assert seen.images("train") | seen.images("val") == stored["train"]
    assert not seen.images("train") & seen.images("val")
    assert seen.images("test") == stored["test"]
    assert data.class_names == TEN


def test_a_fit_reads_nothing_of_the_test(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    (root / "test/cat/broken.png").write_bytes(b"no picture")
    data = module(root, tmp_path, batch_size=10)
    trainer(tmp_path).fit(Classifier(linear_net()), data)
    with pytest.raises(ValueError, match="test/cat/broken.png cannot be read"):
        trainer(tmp_path).test(Classifier(linear_net()), data, verbose=False)


def test_a_tree_without_splits_is_divided_in_three(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "abc", 10)
    data = module(root, tmp_path, val_share=0.25, test_share=0.2)
    data.setup("fit")
    rows = [part.rows.tolist() for part in (data.train, data.val, data.test)]
    assert [len(part) for part in rows] == [18, 6, 6]
    assert sorted(sum(rows, [])) == list(range(30))
    of_test = module(root, tmp_path, val_share=0.25, test_share=0.2)
    of_test.setup("test")
    assert of_test.test.rows.tolist() == rows[2]


def test_validation_images_of_the_tree_itself_are_taken(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", "ab")
    write_classes(root / "val", "b", 3, seed=7777)
    (root / "val/a").mkdir()
    data = module(root, tmp_path)
    data.setup("fit")
    assert len(data.train) == 12
    assert data.val[0][1] == 1  # class b, by the names of train
    assert len(data.val) == 3


def test_the_loader_gives_what_a_plain_loader_gives() -> None:
    x, y = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8), torch.arange(23)
    rows = torch.randperm(23)[:17]
    whole = list(whole_batches(Rows(x, y, rows), batch_size=5))
    plain = torch.utils.data.DataLoader([(x[i], y[i]) for i in rows.tolist()], batch_size=5)
    for (a, b), (c, d) in zip(whole, plain, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert sorted(torch.cat([b for _, b in whole_batches(Rows(x, y), batch_size=5, shuffle=True)]).tolist()) == [
        *range(23)
    ]


def test_only_training_is_augmented_and_mixed(tmp_path: Path) -> None:
    class Black(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.uint8
            return torch.zeros_like(x)

    seen = Seen()
    data = module(write_tree(tmp_path / "tree"), tmp_path, batch_size=10, augment=[Black()])
    trainer(tmp_path, seen).fit(Classifier(linear_net()), data)
    assert all(not x.any() for x in seen.of["train"])
    assert all(x.std() > 0.2 and x.min() >= 0 and x.max() <= 1 for x in seen.of["val"])


@pytest.mark.parametrize("transform", [v2.RandAugment(), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)])
def test_what_would_change_all_images_of_a_batch_alike_is_warned_of(tmp_path: Path, transform: nn.Module) -> None:
    name = type(transform).__name__
    with pytest.warns(UserWarning, match=rf"{name} draws once for a whole batch; EachImage\({name}\) draws for each"):
        ImagesDataModule(NpzImages(npz(tmp_path)), augment=[transform])
    ImagesDataModule(NpzImages(npz(tmp_path)), augment=[EachImage(transform), v2.Normalize([0.5], [0.5]), RandomFlip()])


@pytest.mark.parametrize("mix", [v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)])
def test_mixed_batches_have_shares_of_classes(tmp_path: Path, mix: nn.Module) -> None:
    data = module(write_tree(tmp_path / "tree"), tmp_path, batch_size=10, mix=mix)
    data.setup("fit")
    running = trainer(tmp_path)
    running.state.stage = pl.trainer.states.RunningStage.TRAINING
    data.trainer = running
    x, y = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert (x.dtype, y.shape) == (torch.float32, (10, 10))
    assert torch.allclose(y.sum(1), torch.ones(10))


def test_bytes_become_the_floats_that_everybody_has(tmp_path: Path) -> None:
    data = ImagesDataModule(NpzImages(npz(tmp_path)))
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x, _ = data.on_after_batch_transfer((every, torch.zeros(1)), 0)
    assert np.array_equal(x.flatten(), (np.arange(256) / 255).astype(np.float32))


def test_grey_is_repeated_and_colours_become_grey_as_pillow_has_them(tmp_path: Path) -> None:
    pixels = random_pixels(0, 8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    grey, _ = ImagesDataModule(NpzImages(npz(tmp_path)), channels=1).on_after_batch_transfer((x, torch.zeros(1)), 0)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.abs(grey[0, 0].numpy() * 255 - expected).max() <= 1
    three, _ = ImagesDataModule(NpzImages(npz(tmp_path)), channels=3).on_after_batch_transfer((x[:, :1], grey), 0)
    assert all(torch.equal(three[:, channel], x[:, 0] / 255) for channel in range(3))


def test_grey_images_for_a_net_of_colours_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    with pytest.raises(ValueError, match="the images have 1 channels and the net takes 3; `channels: 3`"):
        trainer(tmp_path).fit(Classifier(net), ImagesDataModule(NpzImages(npz(tmp_path))))
    trainer(tmp_path).fit(Classifier(net), ImagesDataModule(NpzImages(npz(tmp_path)), batch_size=8, channels=3))


def npz(folder: Path, **arrays: Any) -> str:
    """Grey images of 8 x 8 in three classes, for training and test."""
    rng = np.random.default_rng(0)
    given = {}
    for split, num in (("train", 30), ("test", 6)):
        given[f"x_{split}"] = rng.integers(0, 256, (num, 8, 8), dtype=np.uint8)
        given[f"y_{split}"] = np.arange(num) % 3
    np.savez(folder / "images.npz", **{**given, **arrays})
    return str(folder / "images.npz")


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


# Trees with faults.


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


def test_a_class_with_one_image_cannot_be_divided(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "tree", "ab", 2)
    (root / "b/1.png").unlink()
    with pytest.raises(ValueError, match="the class 'b' has one image"):
        module(root, tmp_path).setup("fit")


# Data sets of torchvision.


def test_exact_mnist_images_are_read_through_torchvision(tmp_path: Path, shared: Path) -> None:
    from .public_models import mnist_images

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    import gzip

    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = gzip.decompress((shared / "data" / f"{name}.gz").read_bytes())
        for copy in (name, name.replace("t10k", "train")):
            (raw / copy).write_bytes(content)
    found = TorchvisionImages("MNIST", str(tmp_path)).read("test", tmp_path)
    x, y = mnist_images(shared, 10_000)
    assert found is not None
    assert torch.equal(found.x.float() / 255, x)
    assert torch.equal(found.y, y)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"half")
    with pytest.raises(ValueError, match="interrupted, perhaps"):
        TorchvisionImages("MNIST", str(tmp_path)).read("test", tmp_path)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"])
def test_nothing_is_downloaded_unasked(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="download: true fetches it"):
        TorchvisionImages(name, str(tmp_path)).read("train", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_wrong_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", interrupted)
    with pytest.raises(ValueError, match=r"File not found or corrupted.*interrupted, perhaps"):
        TorchvisionImages("CIFAR10", str(tmp_path), download=True).read("train", tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: ImagesDataModule(s, batch_size=0), r"batch_size=.* >= 1, got 0"),
        (lambda s: ImagesDataModule(s, val_share=1.0), r"val_share=.* in \(0, 1\), got 1"),
        (lambda s: ImagesDataModule(s, split_seed=-1), "split_seed=.* >= 0, got -1"),
        (lambda s: ImagesDataModule(s, channels=2), "channels=.* 1, 3 or None, got 2"),
        (lambda s: ImageTree(os.curdir, size=0), "size=.* >= 1"),
        (lambda s: ImageTree(os.curdir, corrupt="ask"), "error or skip, got 'ask'"),
        (lambda s: TorchvisionImages("cifar", "."), "must be one of CIFAR10"),
        (lambda s: NpzImages("none.npz"), "there is no such file"),
        (lambda s: NpzImages(), "give one at least"),
    ],
)
def test_a_value_outside_its_range_is_named(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(NpzImages(npz(tmp_path)))
