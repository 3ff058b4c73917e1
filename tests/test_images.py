"""Images of every source arrive whole, divided by class and seed, and the test's are left alone until the test."""

from __future__ import annotations

import os
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

from .image_files import TEN, npz, random_pixels, write_classes, write_tree


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

    class White(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            mixed.append(len(x))
            return 1 - x, y

    mixed: list[int] = []
    seen = Seen()
    data = module(write_tree(tmp_path / "tree"), tmp_path, batch_size=10, augment=[Black()], mix=White())
    trainer(tmp_path, seen).fit(Classifier(linear_net()), data)
    assert all((x == 1).all() for x in seen.of["train"])
    assert mixed == [len(x) for x in seen.of["train"]]
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


@pytest.mark.parametrize(("batch_size", "sizes"), [(10, [10, 10]), (24, [24]), (30, [24])])
def test_batches_of_training_are_whole_unless_there_is_none(tmp_path: Path, batch_size: int, sizes: list[int]) -> None:
    data = ImagesDataModule(NpzImages(npz(tmp_path)), val_share=0.2, batch_size=batch_size)
    data.setup("fit")
    assert len(data.train) == 24
    assert [len(y) for _, y in data.train_dataloader()] == sizes


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
    off = np.abs(grey[0, 0].numpy() * 255 - expected)
    assert off.max() <= 1
    assert (off > 0.5).mean() < 0.01  # where Pillow's whole numbers round a half the other way
    three, _ = ImagesDataModule(NpzImages(npz(tmp_path)), channels=3).on_after_batch_transfer((x[:, :1], grey), 0)
    assert all(torch.equal(three[:, channel], x[:, 0] / 255) for channel in range(3))


def test_grey_images_for_a_net_of_colours_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    with pytest.raises(ValueError, match="the images have 1 channels and the net takes 3: .* `channels: 3`"):
        trainer(tmp_path).fit(Classifier(net), ImagesDataModule(NpzImages(npz(tmp_path))))
    net.insert(0, nn.Sequential())
    net[0].head = nn.Conv2d(64, 4, 1)  # registered before the input layer, and never called
    net[0].forward = lambda x: x
    trainer(tmp_path).fit(Classifier(net), ImagesDataModule(NpzImages(npz(tmp_path)), batch_size=8, channels=3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: ImagesDataModule(s, batch_size=0), r"batch_size=.* >= 1, got 0"),
        (lambda s: ImagesDataModule(s, val_share=1.0), r"val_share=.* in \(0, 1\), got 1"),
        (lambda s: ImagesDataModule(s, split_seed=-1), "split_seed=.* >= 0, got -1"),
        (lambda s: ImagesDataModule(s, channels=2), "channels=.* 1, 3 or None, got 2"),
        (lambda s: ImageTree(os.curdir, size=0), "size=.* >= 1"),
        (lambda s: ImageTree(os.curdir, corrupt="ask"), "'error', 'skip', got 'ask'"),
        (lambda s: TorchvisionImages("cifar", "."), "must be one of 'CIFAR10'"),
        (lambda s: NpzImages("none.npz"), "there is no such file"),
        (lambda s: NpzImages(), "give one at least"),
    ],
)
def test_a_value_outside_its_range_is_named(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(NpzImages(npz(tmp_path)))
