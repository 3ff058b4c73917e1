"""`Faster`: the same net, computed in another memory format, and compiled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.options import check_flags


class Faster(nn.Module):
    """A net of images with the channels last in memory, where convolutions are faster, and compiled where wanted.

    The weights of the net are found under `net.` with both options and with none.

    Args:
        net: pixels, float `(N, C, H, W)`, to logits.
        channels_last: whether images and weights lie in memory channel by channel of a pixel.
        compile: whether `torch.compile` works on the net at its first batches: a minute or more, for shorter steps.

    Shape:
        as that of `net`.
    """

    def __init__(self, net: nn.Module, *, channels_last: bool = True, compile: bool = False) -> None:
        super().__init__()
        check_flags(self, channels_last=channels_last, compile=compile)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(memory_format=self.format)
        if compile:
            self.net.compile()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.contiguous(memory_format=self.format))
