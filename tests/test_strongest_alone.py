"""What `Strongest` spends on a sample depends on that sample alone."""

from __future__ import annotations

import pytest
import torch

from touchstone.attacks import L0, L1, L2, Linf, Strongest, evaluate
from touchstone.attacks.threats.ball import Ball

from .oracles import images, small_net


@pytest.mark.parametrize(
    "threat", [Linf(eps=0.05), L2(eps=0.3), L1(eps=1.0), L0(eps=2)], ids=lambda t: type(t).__name__
)
def test_a_thorough_budget_is_spent_on_each_sample_as_on_that_sample_alone(threat: Ball) -> None:
    net, x = small_net(dtype=torch.float64).eval(), images(12, dtype=torch.float64)
    y = net(x).argmax(1)
    attacks = {"strongest": Strongest(threat=threat, max_passes=500)}
    together, alone = (
        evaluate(net, x, y, attacks, batch_size=size, probe_masking=False).cost["strongest"] for size in (12, 1)
    )
    assert (together.num_forwards, together.num_backwards) == (alone.num_forwards, alone.num_backwards)
