"""`Strongest` on a net of which one class alone can be reached, and not one that comes near on the way to others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from touchstone.attacks import L1, L2, Linf, Strongest, Threat, evaluate

EPS, NUM_PIXELS = 0.1, 64


def net_of_one_way_out() -> nn.Module:
    """Linear: classes 1 to 3 are nearest and fall short by 0.05 or more; 4 wins by 0.1, the opposite way."""
    signs = torch.randn(NUM_PIXELS, generator=torch.Generator().manual_seed(0)).sign()
    net = nn.Sequential(nn.Flatten(), nn.Linear(NUM_PIXELS, 5))
    gaps, most = torch.tensor([0.0, -1.0, -1.1, -1.2, -1.5]), torch.tensor([0.0, 0.95, 1.0, 1.1, -1.6])
    with torch.no_grad():
        net[1].weight.copy_(most[:, None] * signs / (EPS * NUM_PIXELS))
        net[1].bias.copy_(gaps - net[1].weight.sum(1) / 2)
    return net


@pytest.mark.parametrize("max_passes", [200, 500])
@pytest.mark.parametrize(
    ("threat", "most"),
    [(Linf(eps=EPS), 100), (L2(eps=EPS * NUM_PIXELS**0.5), 150), (L1(eps=EPS * NUM_PIXELS), 100)],
    ids=["linf", "l2", "l1"],
)
def test_a_class_is_found_that_lies_the_other_way_than_the_nearest_ones(
    threat: Threat, most: int, max_passes: int
) -> None:
    x, y = torch.full((16, 1, 8, 8), 0.5), torch.zeros(16, dtype=torch.long)
    attack = Strongest(threat=threat, max_passes=max_passes)
    report = evaluate(net_of_one_way_out(), x, y, {"s": attack}, probe_masking=False)
    assert not report.robust["s"].any()
    assert report.cost["s"].num_backwards / len(x) <= most
