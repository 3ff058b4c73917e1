"""Folders of pictures, some of them damaged, and a small net that names them."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

needs_imagenet = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="the extra imagenet is not installed"
)
RED = (200, 30, 40)


class Classes(pl.LightningModule):
    """A net of 3 classes by the mean of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
        self.net[2].weight.data = 9 * torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).softmax(1)


class NanWhereBright(Classes):
    """The logit of the second class grows with the mean of a picture, and is NaN from a limit on."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3))
        second = torch.where(bright < self.limit, 5 * bright - 5, torch.nan)
        return torch.stack([bright * 0, second, bright * 0 - 1], 1)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.eye(3)[[0] * len(batch[0])]


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def folder_of_pictures(folder: Path) -> Path:
    for name, colour in (("b_green.png", (0, 255, 0)), ("sub/c_blue.jpg", (0, 0, 255)), ("z_red.webp", (255, 0, 0))):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (300, 200), colour).save(folder / name)
    whole = (folder / "sub/c_blue.jpg").read_bytes()
    (folder / "a_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d_empty.png").write_bytes(b"")
    bomb(folder / "e_bomb.png", 20_000)
    (folder / "notes.txt").write_text("no picture")
    return folder
