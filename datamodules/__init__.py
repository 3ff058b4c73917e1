"""LightningDataModules: where batches `(x, y)` come from; images are float32 in [0, 1], `(N, C, H, W)`."""

from .digits import DigitsDataModule

__all__ = ["DigitsDataModule"]
