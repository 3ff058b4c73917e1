"""LightningDataModules: where batches `(x, y)` come from; images are float32 in [0, 1], `(N, C, H, W)`."""

from .digits import DigitsDataModule
from .passages import PassagesDataModule
from .pictures import PicturesDataModule
from .text import TextDataModule

__all__ = ["DigitsDataModule", "PassagesDataModule", "PicturesDataModule", "TextDataModule"]
