"""`ImagesDataModule`: labelled images from any source, read once and made into batches on the device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.options import check_between, check_choice, check_counts

from .parts.drawn_classes import shuffled
from .parts.stratified import stratified
from .parts.whole_batches import Batch, Rows, whole_batches
from .sources import Labelled, Source, Split

GREY_SHARES = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow has them


class ImagesDataModule(pl.LightningDataModule):
    """Labelled images, divided into training, validation and test.

    Images are kept as bytes; a batch is augmented on the device and becomes float32 in [0, 1] there. Where a source
    has no validation images, they are taken from those for training, the same share of every class; where it has no
    test images, those too. What a source has for the test is read by `test` and `predict` alone.

    Args:
        source: where images and classes come from, as `ImageTree`.
        batch_size: samples per training step, >= 1; an incomplete last batch of an epoch is left out.
        eval_batch_size: samples per validation, test and prediction step, >= 1.
        val_share: share of the training images that is for validation, in (0, 1).
        test_share: share that is for the test where the source has none, in (0, 1).
        class_shares: how often each class is drawn for training, in proportion, one number >= 0 a class, or `"equal"`:
            against imbalance, with replacement, as many samples an epoch as there are. None for every image once.
        split_seed: seeds both, >= 0; the same seed gives the same sets.
        channels: 1 or 3, to make grey of colours or to repeat grey; None for what there is.
        augment: modules that take training images, uint8 `(N, C, H, W)`, to others, one after another.
        mix: takes a training batch, float images and classes, to another one after that, such as `MixUp` and `CutMix`
            of `torchvision.transforms.v2`; its classes may be shares, `(N, classes)`.
        num_workers: processes that load batches, >= 0.
        cache_folder: where to keep what was decoded.

    Attributes:
        class_names: what the classes are called, once it is set up.

    Raises:
        ValueError: a value is outside its range; when it is set up: images of a split have another shape than those for
            training.

    Warns:
        UserWarning: a checkpoint has learnt classes of other names than these images have.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_share: float = 0.1,
        test_share: float = 0.1,
        split_seed: int = 0,
        class_shares: Sequence[float] | Literal["equal"] | None = None,
        channels: int | None = None,
        augment: Sequence[nn.Module] = (),
        mix: nn.Module | None = None,
        num_workers: int = 0,
        cache_folder: str = "logs/cache",
    ) -> None:
        super().__init__()
        check_counts(self, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_counts(self, split_seed=split_seed, num_workers=num_workers, least=0)
        check_between("ImagesDataModule(val_share=...)", val_share, 0, 1, "()")
        check_between("ImagesDataModule(test_share=...)", test_share, 0, 1, "()")
        if isinstance(class_shares, str):
            check_choice(
                "ImagesDataModule(class_shares=...)", class_shares, ("equal",), hint="; or a number for each class"
            )
        if channels not in (None, 1, 3):
            raise ValueError(f"ImagesDataModule(channels=...) must be 1, 3 or None, got {channels}")
        if augment:
            _warn_of_one_draw(augment)
        self.source, self.batch_size, self.eval_batch_size = source, batch_size, eval_batch_size
        self.val_share, self.test_share, self.split_seed = val_share, test_share, split_seed
        self.class_shares = class_shares
        self.channels, self.augment, self.mix = channels, tuple(augment), mix
        self.num_workers, self.cache_folder = num_workers, Path(cache_folder)

    def prepare_data(self) -> None:
        is_test = self.trainer is not None and self.trainer.state.fn in (TrainerFn.TESTING, TrainerFn.PREDICTING)
        # Decoded by one process for all.
        splits: tuple[Split, ...] = ("test",) if is_test and self.source.has("test") else ("train", "val")
        for split in splits:
            self.source.read(split, self.cache_folder)

    def setup(self, stage: str) -> None:
        if stage in ("test", "predict") and (of_test := self.source.read("test", self.cache_folder)) is not None:
            self._check_shape("test", of_test, self.source.train_shape())
            self.test = self._rows(of_test, None)
            return
        train = self.source.read("train", self.cache_folder)
        if train is None:
            raise ValueError(f"{type(self.source).__name__} has no images for training")
        rows = torch.arange(len(train.y))
        if not self.source.has("test"):
            rows, of_test_rows = self._divide(train, rows, self.test_share)
            self.test = self._rows(train, of_test_rows)
        of_val = self.source.read("val", self.cache_folder)
        if of_val is None:
            rows, of_val_rows = self._divide(train, rows, self.val_share)
            self.val = self._rows(train, of_val_rows)
        else:
            self._check_shape("val", of_val, train.x.shape[1:])
            self.val = self._rows(of_val, None)
        self.train = self._rows(train, rows)

    def state_dict(self) -> dict[str, Any]:
        return {"class_names": self.class_names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warns where a net's answers mean other classes than those of these images, by its checkpoint."""
        learnt, here = state_dict.get("class_names"), self.class_names
        if not learnt or not here or tuple(learnt) == here:
            return
        number = next(n for n, (one, other) in enumerate(zip_longest(learnt, here)) if one != other)
        was, now = (repr(names[number]) if number < len(names) else "none" for names in (learnt, here))
        rank_zero_warn(
            f"ImagesDataModule: the checkpoint has learnt {len(learnt)} classes, of which number {number} is {was}; of "
            f"the {len(here)} here it is {now}: unless they are the same by other names, figures are wrong"
        )

    def train_dataloader(self) -> DataLoader:
        return whole_batches(
            self.train,
            batch_size=self.batch_size,
            **shuffled(self.train, self.class_shares, self.class_names),
            drop_last=len(self.train) >= self.batch_size,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader:
        return whole_batches(self.val, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        return whole_batches(self.test, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        x, y = batch
        is_training = self.trainer is not None and self.trainer.training
        x = self._with_channels(x)
        for change in self.augment if is_training else ():
            x = change(x)
        x = x.float().div_(255)
        return self.mix(x, y) if is_training and self.mix is not None else (x, y)

    def _divide(self, images: Labelled, rows: Tensor, share: float) -> tuple[Tensor, Tensor]:
        left, taken = stratified(images.y[rows], share, self.split_seed, images.class_names)
        return rows[left], rows[taken]

    def _rows(self, images: Labelled, rows: Tensor | None) -> Rows:
        self.class_names = images.class_names
        return Rows(images.x, images.y, rows)

    def _check_shape(self, split: Split, images: Labelled, of_train: tuple[int, ...] | None) -> None:
        """A net that pools takes any size, and would be measured on another one than it has learnt."""
        given = tuple(images.x.shape[1:])
        if of_train is None or (given[1:] == of_train[1:] and (self.channels is not None or given[0] == of_train[0])):
            return
        if given[1:] == of_train[1:]:
            remedy = f"`channels: {max(given[0], of_train[0])}` converts them"
        else:
            remedy = "`size` of ImageTree brings pictures to one"
        raise ValueError(
            f"ImagesDataModule(source=...) must have images of one shape (C, H, W), got {given} in {split} "
            f"and {tuple(of_train)} in train; {remedy}"
        )

    def _with_channels(self, x: Tensor) -> Tensor:
        if self.channels is None or x.shape[1] == self.channels:
            return x
        if self.channels == 3:
            return x.expand(-1, 3, -1, -1)
        shares = torch.tensor(GREY_SHARES, device=x.device).view(1, 3, 1, 1)
        return (x * shares).sum(1, keepdim=True).round().to(x.dtype)


def _warn_of_one_draw(augment: Sequence[nn.Module]) -> None:
    from .augmentations.each_image import draws_once  # torchvision's transforms take a while

    for name in (type(part).__name__ for part in augment if draws_once(part)):
        rank_zero_warn(
            f"ImagesDataModule(augment=...): {name} draws once for a whole batch; "
            f"EachImage({name}) draws for each image"
        )
