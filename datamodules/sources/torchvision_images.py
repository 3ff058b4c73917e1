"""`TorchvisionImages`: CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST as torchvision reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from touchstone.options import check_choice, check_flags

from .source import Labelled, Source, Split

Name = Literal["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"]
NUM_IMAGES = {"CIFAR10": (50_000, 10_000), "CIFAR100": (50_000, 10_000)} | dict.fromkeys(
    ("MNIST", "FashionMNIST"), (60_000, 10_000)
)
"""Of each set, for training and for the test."""
NAMES = tuple(NUM_IMAGES)


class TorchvisionImages(Source):
    """A data set of torchvision.

    Args:
        name: `"CIFAR10"`, `"CIFAR100"`, `"MNIST"` or `"FashionMNIST"`.
        root: the folder in which it lies, or into which it is downloaded.
        download: whether to download what is not there.

    Raises:
        ValueError: there is no such name.
    """

    def __init__(self, name: Name, root: str, *, download: bool = False) -> None:
        check_choice("TorchvisionImages(name=...)", name, NAMES)
        check_flags(self, download=download)
        self.name, self.root, self.download = name, root, download

    def has(self, split: Split) -> bool:
        return split != "val"

    def read(self, split: Split, cache_folder: Path) -> Labelled | None:
        if not self.has(split):
            return None
        stored = self._open(train=split == "train")
        x = torch.as_tensor(np.asarray(stored.data))
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
        y = torch.as_tensor(np.asarray(stored.targets), dtype=torch.int64)
        whole = NUM_IMAGES[self.name][split == "test"]
        if not len(x) == len(y) == whole:
            raise ValueError(
                f"{self._call}: it has {len(x)} images for {split} and {len(y)} labels, where there are {whole}: "
                f"{self._again}"
            )
        return Labelled(x, y, tuple(stored.classes))

    @property
    def _call(self) -> str:
        return f"TorchvisionImages({self.name!r}, root={self.root!r})"

    @property
    def _again(self) -> str:
        return f"a download that was interrupted, perhaps: take away what is in {self.root} and set download: true"

    def _open(self, *, train: bool) -> Any:
        from torchvision import datasets

        try:
            return getattr(datasets, self.name)(self.root, train=train, download=self.download)
        except Exception as error:  # its readers raise whatever they meet in half a file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, RuntimeError) and "not found" in reason and not self.download:
                raise ValueError(
                    f"{self._call}: it is not there, or not whole; download: true fetches it into {self.root}"
                ) from error
            raise ValueError(f"{self._call}: {reason}; {self._again}") from error
