"""LightningDataModules: where batches `(x, y)` come from; images are float32 in [0, 1], `(N, C, H, W)`."""

from .digits import DigitsDataModule
from .images import ImagesDataModule
from .passages import PassagesDataModule
from .pictures import PicturesDataModule
from .sources import ImageTree, NpzImages, TorchvisionImages
from .text import TextDataModule

__all__ = [
    "DigitsDataModule",
    "ImageTree",
    "ImagesDataModule",
    "NpzImages",
    "PassagesDataModule",
    "PicturesDataModule",
    "TextDataModule",
    "TorchvisionImages",
]
