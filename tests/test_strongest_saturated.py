"""`Strongest` on nets whose units saturate, where a climb that gains nothing says little of the next one."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from touchstone.attacks import L1, L2, PGD, Linf, Margin, Strongest, Untargeted, evaluate
from touchstone.attacks.threats.ball import Ball

NUM_TRAINED, NUM_MEASURED = 1500, 200
SHARPER = 10.0  # than trained: all hidden units are then far out on their flat ends


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target)


@cache
def trained_net(unit: type[nn.Module]) -> nn.Sequential:
    """Four layers of 64 such units, trained on digits."""
    torch.manual_seed(0)
    (x, y), width, layers = digits(), 64, list[nn.Module]([nn.Flatten()])
    for _ in range(4):
        layers += [nn.Linear(width, width), unit()]
    net = nn.Sequential(*layers, nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
    for _ in range(30):
        for rows in torch.randperm(NUM_TRAINED).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def saturated_net(unit: type[nn.Module]) -> nn.Sequential:
    """Such a net whose hidden layers have weights so much larger that it gives nearly one answer in many places."""
    net = copy.deepcopy(trained_net(unit))
    for layer in net[1:-1]:
        for weight in layer.parameters():
            weight *= SHARPER
    return net


@pytest.mark.parametrize("unit", [nn.Sigmoid, pytest.param(nn.Tanh, marks=pytest.mark.slow)])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.6), L1(eps=2.0)], ids=["linf", "l2", "l1"])
def test_it_leaves_hardly_more_than_ten_restarts_of_pgd_for_less(threat: Ball, unit: type[nn.Module]) -> None:
    (x, y), net = digits(), saturated_net(unit)
    rows = slice(NUM_TRAINED, NUM_TRAINED + NUM_MEASURED)
    pgd = PGD(threat=threat, objective=Untargeted(loss=Margin()), num_steps=50, num_restarts=10)
    report = evaluate(net, x[rows], y[rows], {"s": Strongest(threat=threat), "pgd": pgd}, probe_masking=False)
    cost = {name: spent.num_forwards + spent.num_backwards for name, spent in report.cost.items()}
    standing = {name: int(robust.sum()) for name, robust in report.robust.items()}
    print(threat, unit.__name__, f"of {int(report.clean_correct.sum())} stand {standing} at {cost}")
    assert standing["s"] <= standing["pgd"] + 4
    assert cost["s"] < cost["pgd"]


@pytest.mark.slow
def test_a_compiled_net_gets_the_verdicts_and_the_cost_of_the_net() -> None:
    (x, y), net = (part[NUM_TRAINED : NUM_TRAINED + 12] for part in digits()), saturated_net(nn.Tanh)
    attacks = {"s": Strongest(threat=Linf(eps=0.05))}
    reports = [
        evaluate(model, x, y, attacks, probe_masking=False) for model in (net, torch.compile(net, backend="eager"))
    ]
    assert torch.equal(*(report.robust["s"] for report in reports))
    assert reports[0].cost["s"].num_forwards == reports[1].cost["s"].num_forwards
    assert 0 < int(reports[0].robust["s"].sum()) < 12
