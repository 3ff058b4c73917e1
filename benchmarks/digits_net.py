"""A net of handwritten digits, trained in seconds on plain images or on attacked ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import Attack
from touchstone.datamodules import DigitsDataModule
from touchstone.nets import SmallCNN


def digits_net(num_epochs: int = 20, *, width: int = 64, attack: Attack | None = None) -> nn.Module:
    """`SmallCNN` on handwritten digits, by AdamW at one learning rate, in evaluation mode.

    Args:
        num_epochs: of the training.
        width: of the net.
        attack: makes the examples that it is trained on, in evaluation mode; None for plain images.
    """
    data, net = DigitsDataModule(), SmallCNN(width=width)
    data.setup("fit")
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003, weight_decay=0.1)
    for _ in range(num_epochs):
        for x, y in data.train_dataloader():
            x = x if attack is None else attack(net, x, y)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval()


def digits_images(number: int = 300) -> tuple[Tensor, Tensor]:
    """The first test images, of 300."""
    data = DigitsDataModule()
    data.setup("test")
    x, y = data.test.tensors
    return x[:number], y[:number]
