"""`Strongest` on a net of smooth units that was trained on attacks: climbs from inside the threat end on plateaus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import PGD, AutoAttack, Linf, Strongest, evaluate

from .public_models import mnist_images

EPS, NUM_MEASURED, NUM_EPOCHS, BATCH = 0.3, 200, 12, 128


def smooth_net(x: Tensor, y: Tensor) -> nn.Sequential:
    """Convolutions with GELU, trained on PGD of 7 steps inside an eps that grows to that of the measurement."""
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 16, 4, 2, 1), nn.GELU(), nn.Conv2d(16, 32, 4, 2, 1), nn.GELU()
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 49, 100), nn.GELU(), nn.Linear(100, 10))
    num_steps = NUM_EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=num_steps)
    for step in range(num_steps):
        rows = torch.randint(len(x), (BATCH,))
        eps = EPS * min(1.0, 6 * (step + 1) / num_steps)
        images = PGD(threat=Linf(eps=eps), num_steps=7, step_size=eps / 4, early_stop=False)(net, x[rows], y[rows])
        optimizer.zero_grad()
        F.cross_entropy(net(images), y[rows]).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_leaves_no_more_than_autoattack_for_a_thirtieth(shared: Path) -> None:
    x, y = mnist_images(shared, 10_000)
    net, threat = smooth_net(x[2000:], y[2000:]), Linf(eps=EPS)
    attacks = {"s": Strongest(threat=threat), "autoattack": AutoAttack(threat=threat)}
    report = evaluate(net, x[:NUM_MEASURED], y[:NUM_MEASURED], attacks, probe_masking=False)
    cost = {name: (c.num_forwards + c.num_backwards) / NUM_MEASURED for name, c in report.cost.items()}
    standing = {name: int(robust.sum()) for name, robust in report.robust.items()}
    print(f"of {int(report.clean_correct.sum())} stand {standing} at {cost} an image")
    assert standing["s"] <= standing["autoattack"]
    assert cost["s"] <= cost["autoattack"] / 30
