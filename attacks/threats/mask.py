"""`read_mask`: the pixels that an attacker may change, as a config says them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_BOX = re.compile(r"(\d+):(\d+) *, *(\d+):(\d+) +of +(\d+) *x *(\d+)")


def read_mask(text: str, call: str) -> Tensor:
    """One mask for all images.

    Args:
        text: a rectangle of pixels, rows and columns from the top left, the last ones excluded, and the size of the
            image: `"0:8, 0:8 of 32 x 32"`; or a file: `.npy` of bool or of 0 and 1, `(H, W)` or `(C, H, W)`; or
            `.png`, where every pixel that is not black may change.
        call: what the messages begin with.

    Returns:
        bool `(1, 1, H, W)`, or `(1, C, H, W)` from such an array.

    Raises:
        ValueError: `text` is none of these, or the file is not there or holds something else.
    """
    box = _BOX.fullmatch(text.strip())
    if box:
        top, bottom, left, right, height, width = map(int, box.groups())
        if not (top < bottom <= height and left < right <= width):
            raise ValueError(f"{call} must be top:bottom, left:right of H x W, inside the image, got {text!r}")
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
        mask[..., top:bottom, left:right] = True
        return mask
    path = Path(text)
    if path.suffix not in (".npy", ".png"):
        raise ValueError(
            f"{call} must be a tensor, a rectangle such as '0:8, 0:8 of 32 x 32' or a .npy or .png file, got {text!r}"
        )
    if not path.is_file():
        raise ValueError(f"{call}: there is no file {text!r}")
    values = _pixels_of(path)
    if values.ndim not in (2, 3) or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{call} must hold bool or 0 and 1, (H, W) or (C, H, W), got {values.dtype} {values.shape} in {text!r}"
        )
    return torch.from_numpy(values.astype(bool)).reshape(1, -1, *values.shape[-2:])


def _pixels_of(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 0
