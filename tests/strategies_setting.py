"""What strategies are tested on: a small net, a batch, and inner attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf, SampleRng

from .oracles import images, small_net

EPS, STEP = 0.1, 0.03
LINF = Linf(eps=EPS)
PGD_3 = PGD(threat=LINF, num_steps=3, step_size=STEP, to_the_end=True)
NEARBY_3 = PGD(threat=LINF, num_steps=3, step_size=STEP, start_std=0.001)
RNG = SampleRng.numbered(8, seed=3)


def net_and_batch() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A net with BatchNorm and without dropout, in the modes of training, and samples it is partly wrong on."""
    net = small_net(7, torch.float64)
    net[3].p = 0.0
    return net.train(), images(8, dtype=torch.float64), torch.arange(8) % 4
