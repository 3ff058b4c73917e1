"""`Source`: labelled images that are read one split at a time, so that a training never touches the test's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """The images of a split.

    Attributes:
        x: bytes, uint8 `(N, C, H, W)`; possibly a memory map, of which only what is asked for is read.
        y: the classes, int64 `(N,)`.
        class_names: what the classes are called.
    """

    x: Tensor
    y: Tensor
    class_names: tuple[str, ...]


class Source(ABC):
    """Labelled images. A new one defines `has` and `read`, and `train_shape` where splits may differ in it."""

    @abstractmethod
    def has(self, split: Split) -> bool:
        """Whether there are images of this split; reads none of them."""

    @abstractmethod
    def read(self, split: Split, cache_folder: Path) -> Labelled | None:
        """The images of a split, or None where the source has no such split: it is then taken from the training's.

        Args:
            split: which; a source has at least `"train"`, or `"test"` where it is for tests alone.
            cache_folder: where to keep what was decoded.

        Raises:
            ValueError: the images cannot be read; the message names the first one.
        """

    def train_shape(self) -> tuple[int, ...] | None:
        """`(C, H, W)` of the training images, without reading them all, so that a test can be compared with them.

        None where there are none, or where it is not known; nothing is then compared.
        """
        return None
