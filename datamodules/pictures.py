"""`PicturesDataModule`: pictures from a folder or a file, as people have them, to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from touchstone.nets.preset import Preset, preset_of
from touchstone.options import check_choice, check_counts

from .parts.read_picture import MAX_PIXELS, picture_suffixes, read_picture
from .parts.tree_files import files_below

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Row = tuple[Tensor | None, int, str]


class PicturesDataModule(pl.LightningDataModule):
    """Every picture of a folder and of the folders in it, links to folders too, made ready for a net of ImageNet.

    The short side is resized and the centre is cut out, as the weights of the net want it where they say so (`Preset`),
    else the centre of 224 pixels of 256, bicubic; what is given here comes first. A batch is the pictures, float
    `(N, 3, S, S)` in [0, 1], their positions in `files`, int64 `(N,)`, and a list `(position, reason)` of those that
    could not be read.

    Args:
        root: a folder or a file; None for the two photographs that come with scikit-learn.
        image_size: side S of the square that the net takes, >= 1; None for that of its weights.
        resize: the short side before the centre is cut out, >= `image_size`; None for as much more than that as the
            weights want.
        interpolation: how it is resized, `"bilinear"` or `"bicubic"`; None as the weights want.
        batch_size: pictures for each forward, >= 1.
        max_pixels: larger pictures are refused before they fill the memory.
        max_pictures: the first so many, by their names, are taken, >= 1; None for all.
        class_names: what the classes are called; `"imagenet"` for those of ImageNet, None for numbers.
        num_workers: processes that read pictures, >= 0.

    Raises:
        ValueError: a value is outside its range, there is no such file, or there are no pictures in the folder.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        image_size: int | None = None,
        resize: int | None = None,
        interpolation: Literal["bilinear", "bicubic"] | None = None,
        batch_size: int = 16,
        max_pixels: int = MAX_PIXELS,
        max_pictures: int | None = None,
        class_names: Sequence[str] | Literal["imagenet"] | None = "imagenet",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_counts(self, batch_size=batch_size, max_pixels=max_pixels)
        check_counts(self, num_workers=num_workers, least=0)
        check_counts(self, max_pictures=max_pictures, none_means="all")
        check_counts(self, image_size=image_size, none_means="that of the net")
        least = Preset.image_size if image_size is None else image_size
        check_counts(self, resize=resize, least=least, none_means="that of the net")
        if interpolation is not None:
            check_choice("PicturesDataModule(interpolation=...)", interpolation, tuple(RESAMPLING))
        if isinstance(class_names, str):
            check_choice("PicturesDataModule(class_names=...)", class_names, ("imagenet",))
        self.image_size, self.resize, self.interpolation = image_size, resize, interpolation
        self.max_pixels = max_pixels
        self.batch_size, self.num_workers = batch_size, num_workers
        self.class_names = _imagenet_names() if class_names == "imagenet" else class_names
        self.files = _files(_samples() if root is None else Path(root))[:max_pictures]

    def picture(self, position: int) -> Image.Image:
        """One of the files as upright RGB, whole."""
        return read_picture(self.files[position], max_pixels=self.max_pixels)

    def preset(self) -> Preset:
        """How pictures are cut: as was given, and where it was not, as the weights of the trainer's net want it."""
        net = None if self.trainer is None else self.trainer.lightning_module
        own = (None if net is None else preset_of(net)) or Preset()
        size = self.image_size or own.image_size
        resize = self.resize or max(size, round(size * own.resize / own.image_size))
        if resize < size:
            raise ValueError(
                f"PicturesDataModule(resize=...) must be >= {size}, which the weights of the net want, got {resize}"
            )
        return Preset(size, resize, self.interpolation or own.interpolation)

    def predict_dataloader(self) -> DataLoader:
        pictures = _Pictures(self)
        return DataLoader(
            pictures, batch_size=self.batch_size, collate_fn=pictures.collate, num_workers=self.num_workers
        )


class _Pictures(Dataset[Row]):
    def __init__(self, data: PicturesDataModule) -> None:
        self.data, self.preset = data, data.preset()

    def __len__(self) -> int:
        return len(self.data.files)

    def __getitem__(self, position: int) -> Row:
        try:
            picture = self.data.picture(position)
        except ValueError as error:
            return None, position, str(error)
        return _centre(picture, self.preset), position, ""

    def collate(self, rows: list[Row]) -> tuple[Tensor, Tensor, list[tuple[int, str]]]:
        """The pictures that could be read, and the reasons for the others."""
        side = self.preset.image_size
        x = [pixels for pixels, _, _ in rows if pixels is not None]
        positions = [position for pixels, position, _ in rows if pixels is not None]
        damaged = [(position, reason) for pixels, position, reason in rows if pixels is None]
        return torch.stack(x) if x else torch.zeros(0, 3, side, side), torch.tensor(positions).long(), damaged


def _centre(picture: Image.Image, preset: Preset) -> Tensor:
    """The middle of a picture, float `(3, S, S)` in [0, 1], cut where torchvision's `CenterCrop` cuts."""
    side, short = preset.image_size, min(picture.size)
    ends = []
    for length in picture.size:
        resized = int(preset.resize * length / short)
        # At half a pixel of the resized picture, every value would be a mean of two.
        first = round((resized - side) / 2)
        ends.append((first * length / resized, min(float(length), (first + side) * length / resized)))
    # Of a picture that is very long, only what is needed is resized.
    (left, right), (top, bottom) = ends
    pixels = picture.resize((side, side), RESAMPLING[preset.interpolation], box=(left, top, right, bottom))
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        hint = "; give its path, no address" if root.parts[:1] == ("file:",) else ""
        raise ValueError(f"PicturesDataModule(root={str(root)!r}): there is no such folder or file{hint}")
    known = picture_suffixes()
    found = [path for path in files_below(root) if path.suffix.lower() in known]
    if not found:
        raise ValueError(f"PicturesDataModule(root={str(root)!r}): there are no pictures in this folder")
    return found


def _samples() -> Path:
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images"


def _imagenet_names() -> list[str]:
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.DEFAULT.meta["categories"])
