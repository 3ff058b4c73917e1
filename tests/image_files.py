"""Small trees of pictures for the tests of data modules and configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def random_pixels(seed: int, side: int) -> np.ndarray:
    """Bytes, `(side, side, 3)`."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_classes(folder: Path, class_names: Sequence[str], num_each: int, *, side: int = 32, seed: int = 0) -> Path:
    """PNG pictures of noise, `folder/CLASS/N.png`; each of its own seed, so that its class is told by its pixels."""
    for number, name in enumerate(class_names):
        (folder / name).mkdir(parents=True)
        for index in range(num_each):
            pixels = random_pixels(seed + 1000 * number + index, side)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def write_tree(root: Path, class_names: Sequence[str] = TEN, num_train: int = 6, num_test: int = 2) -> Path:
    """`train/` and `test/` with pictures of 32 x 32."""
    write_classes(root / "train", class_names, num_train)
    write_classes(root / "test", class_names, num_test, seed=500_000)
    return root


def npz(folder: Path, **arrays: Any) -> str:
    """Grey images of 8 x 8 in three classes, for training and test."""
    rng = np.random.default_rng(0)
    given = {}
    for split, num in (("train", 30), ("test", 6)):
        given[f"x_{split}"] = rng.integers(0, 256, (num, 8, 8), dtype=np.uint8)
        given[f"y_{split}"] = np.arange(num) % 3
    np.savez(folder / "images.npz", **{**given, **arrays})
    return str(folder / "images.npz")
