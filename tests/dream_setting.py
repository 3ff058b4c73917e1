"""What dreams are tested on: a small net, pictures, and options of every kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SHAPE = (2, 3, 16, 16)


def make_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 49, 5),
        )  # fmt: skip


OPTIONS: list[dict[str, Any]] = [
    {},
    {"objective": "mean"},
    {"jitter": 2},
    {"smoothing": 0.7},
    {"variation_penalty": 1e-3},
    {"num_octaves": 2},
    {"decorrelated": True, "step_size": 0.1},
    {"decorrelated": True, "step_size": 0.1, "num_octaves": 2, "jitter": 1, "objective": "mean"},
]
