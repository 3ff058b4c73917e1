"""What `Strongest` spends on a sample depends on that sample alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L0, L1, L2, Linf, Strongest, evaluate
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images, small_net

SMALL = small_net(dtype=torch.float64).eval(), images(12, dtype=torch.float64)
WIDE = LinearModel(400).centred(), images(12, shape=(1, 20, 20), dtype=torch.float64)  # some fall just beyond L0's eps


@pytest.mark.parametrize(
    ("threat", "net", "x"),
    [(Linf(eps=0.05), *SMALL), (L2(eps=0.3), *SMALL), (L1(eps=1.0), *SMALL), (L0(eps=2), *WIDE)],
    ids=["Linf", "L2", "L1", "L0"],
)
def test_a_thorough_budget_is_spent_on_each_sample_as_on_that_sample_alone(
    threat: Ball, net: nn.Module, x: Tensor
) -> None:
    y = net(x).argmax(1)
    attacks = {"strongest": Strongest(threat=threat, max_passes=500)}
    together, alone = (evaluate(net, x, y, attacks, batch_size=size, probe_masking=False) for size in (12, 1))
    assert torch.equal(together.robust["strongest"], alone.robust["strongest"])
    spent, spent_alone = (report.cost["strongest"] for report in (together, alone))
    assert (spent.num_forwards, spent.num_backwards) == (spent_alone.num_forwards, spent_alone.num_backwards)
