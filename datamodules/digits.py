"""`DigitsDataModule`: scikit-learn's handwritten digits, real images that come with a dependency.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998; the
1,797 images of its test part, 8 x 8 pixels of 17 grey levels.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class DigitsDataModule(pl.LightningDataModule):
    """Handwritten digits, 8 x 8 pixels, split by class into 1,197 for training, 300 for validation, 300 for test.

    Args:
        batch_size: samples per training step, >= 1.
        eval_batch_size: samples per validation, test and prediction step, >= 1.
        split_seed: seeds the split; the same seed gives the same three sets.
        num_workers: processes that load batches.
        as_signals: whether the rows of an image are joined to one signal of 64 samples, `(N, 1, 64)`.

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
        as_signals: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"DigitsDataModule({name}=...) must be >= 1, got {value}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.split_seed, self.num_workers = split_seed, num_workers
        self.shape = (1, 64) if as_signals else (1, 8, 8)

    def setup(self, stage: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        split = {"test_size": 300, "random_state": self.split_seed}
        x, x_test, y, y_test = train_test_split(x, y, stratify=y, **split)
        x, x_val, y, y_val = train_test_split(x, y, stratify=y, **split)
        self.train, self.val, self.test = (
            TensorDataset(
                torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *self.shape),
                torch.tensor(labels, dtype=torch.int64),
            )
            for images, labels in ((x, y), (x_val, y_val), (x_test, y_test))
        )

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    predict_dataloader = test_dataloader
