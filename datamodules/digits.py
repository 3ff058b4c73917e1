"""`DigitsDataModule`: scikit-learn's handwritten digits, real images that come with a dependency.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998; the
1,797 images of its test part, 8 x 8 pixels of 17 grey levels.
"""

from __future__ import annotations

from typing import Literal, get_args

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.options import check_choice, check_counts

ReadAs = Literal["images", "signals", "points"]
NUM_POINTS = 24  # of 16 to 42 pixels with ink


class DigitsDataModule(pl.LightningDataModule):
    """Handwritten digits, 8 x 8 pixels, split by class into 1,197 for training, 300 for validation, 300 for test.

    Args:
        batch_size: samples per training step, >= 1.
        eval_batch_size: samples per validation, test and prediction step, >= 1.
        split_seed: seeds the split, >= 0; the same seed gives the same three sets.
        num_workers: processes that load batches, >= 0.
        read_as: what a sample is: `"images"`, `(N, 1, 8, 8)`; `"signals"`, the rows of an image joined to one of 64
            samples, `(N, 1, 64)`; `"points"`, the 24 pixels with the most ink as a set, of each its ink, and row and
            column counted from the middle, `(N, 24, 3)`. Ink is in [0, 1], rows and columns in [-3.5, 3.5].

    Raises:
        ValueError: a value is outside its range.
    """

    class_names = tuple(str(digit) for digit in range(10))

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 300,
        split_seed: int = 0,
        num_workers: int = 0,
        read_as: ReadAs = "images",
    ) -> None:
        super().__init__()
        check_counts(self, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_counts(self, split_seed=split_seed, num_workers=num_workers, least=0)
        check_choice("DigitsDataModule(read_as=...)", read_as, get_args(ReadAs))
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.split_seed, self.num_workers, self.read_as = split_seed, num_workers, read_as

    def setup(self, stage: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        split = {"test_size": 300, "random_state": self.split_seed}
        x, x_test, y, y_test = train_test_split(x, y, stratify=y, **split)
        x, x_val, y, y_val = train_test_split(x, y, stratify=y, **split)
        self.train, self.val, self.test = (
            TensorDataset(
                self._read(torch.tensor(images / 16, dtype=torch.float32)),
                torch.tensor(labels, dtype=torch.int64),
            )
            for images, labels in ((x, y), (x_val, y_val), (x_test, y_test))
        )

    def _read(self, ink: Tensor) -> Tensor:
        """Samples from the ink of the pixels of images, row by row, `(N, 64)`."""
        if self.read_as == "images":
            return ink.reshape(-1, 1, 8, 8)
        if self.read_as == "signals":
            return ink.reshape(-1, 1, 64)
        most, where = (part[:, :NUM_POINTS] for part in ink.sort(dim=1, descending=True, stable=True))
        return torch.stack([most, where // 8 - 3.5, where % 8 - 3.5], dim=2)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    predict_dataloader = test_dataloader
