"""Small nets whose exact robustness is known: linear ones, and ReLU nets by a linear program over every pattern."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from touchstone.attacks import L1, L2, Attack, Linf, Strongest, Transfer, Universal, WarmStarted, evaluate
from touchstone.attacks.threats.ball import Ball

from .attacks_table import ATTACKS
from .oracles import images, own_labels

SHAPE, HIDDEN, CLASSES = (1, 3, 3), 10, 3
EPS = 0.06


def relu_net(seed: int) -> nn.Sequential:
    """9 pixels, 10 hidden units, 3 classes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        net[3].bias -= net(images(200, seed=3, shape=SHAPE, dtype=torch.float64)).mean(0)
    return net


def largest_margin(net: nn.Sequential, x: Tensor, label: int, eps: float) -> float:
    """The largest margin of a wrong class that any image within eps has: positive where the sample can be turned.

    A ReLU net is linear wherever the same units are active. Units that cannot change sign within eps are fixed; for
    each pattern of the others, and each wrong class, a linear program gives the best point of that piece.
    """
    first, second = net[1], net[3]
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()
    out, out_bias = second.weight.detach().numpy(), second.bias.detach().numpy()
    pixels = x.flatten().numpy()
    low, high = np.maximum(pixels - eps, 0), np.minimum(pixels + eps, 1)
    centre, radius = weight @ ((low + high) / 2) + bias, np.abs(weight) @ ((high - low) / 2)
    unstable = np.flatnonzero(np.abs(centre) < radius)
    best = -np.inf
    for pattern in itertools.product([0.0, 1.0], repeat=len(unstable)):
        active = (centre > 0).astype(float)
        active[unstable] = pattern
        signs = 2 * active[unstable] - 1  # weight @ x + bias has this sign
        for wrong in set(range(CLASSES)) - {label}:
            difference = (out[wrong] - out[label]) * active
            found = linprog(
                -(difference @ weight),
                A_ub=-signs[:, None] * weight[unstable] if len(unstable) else None,
                b_ub=signs * bias[unstable] if len(unstable) else None,
                bounds=np.stack([low, high], 1),
            )
            if found.success:
                best = max(best, -found.fun + difference @ bias + out_bias[wrong] - out_bias[label])
    return best


@pytest.fixture(scope="module")
def known() -> list[tuple[nn.Sequential, Tensor, Tensor, Tensor]]:
    """Nets with samples, their classes, and the largest margin within eps."""
    found = []
    for seed in range(3):
        net, x = relu_net(seed), images(40, seed=seed, shape=SHAPE, dtype=torch.float64)
        y = own_labels(net, x)
        margins = [largest_margin(net, image, int(label), EPS) for image, label in zip(x, y, strict=True)]
        found.append((net, x, y, torch.tensor(margins)))
    return found


def test_no_attack_turns_a_sample_that_is_proven_robust(
    known: list[tuple[nn.Sequential, Tensor, Tensor, Tensor]],
) -> None:
    inside = {name.replace(" ", "").replace(",", "-"): a for name, a in ATTACKS.items() if isinstance(a.threat, Linf)}
    attacks = {name: a.inside(Linf(eps=EPS)) for name, a in inside.items() if _fits(a, CLASSES)}
    for net, x, y, margins in known:
        report = evaluate(net, x, y, attacks, probe_masking=False)
        for name, robust in report.robust.items():
            assert robust[margins < -1e-9].all(), name
    assert len(attacks) > 10


def _fits(attack: Attack, num_classes: int) -> bool:
    if isinstance(attack, (Transfer, Universal, WarmStarted)):  # the table's hold nets and changes of another shape
        return False
    try:
        attack.check_classes(num_classes)
    except ValueError:
        return False
    return True


def test_strongest_finds_what_can_be_found(known: list[tuple[nn.Sequential, Tensor, Tensor, Tensor]]) -> None:
    num_vulnerable = num_found = num_robust = 0
    for net, x, y, margins in known:
        robust = evaluate(net, x, y, {"s": Strongest(threat=Linf(eps=EPS))}).robust["s"]
        vulnerable = margins > 1e-6
        num_vulnerable += int(vulnerable.sum())
        num_found += int((~robust & vulnerable).sum())
        num_robust += int((margins < 0).sum())
    assert num_vulnerable > 20
    assert num_robust > 20
    assert num_found >= 0.99 * num_vulnerable, (num_found, num_vulnerable)


@pytest.mark.parametrize(
    ("threat", "dual"),
    [(Linf(eps=0.15, box=None), 1), (L2(eps=0.18, box=None), 2), (L1(eps=0.25, box=None), torch.inf)],
    ids=["linf", "l2", "l1"],
)
def test_strongest_finds_the_one_class_that_is_in_reach_where_classes_lie_on_all_sides(
    threat: Ball, dual: float
) -> None:
    """The class of the nearest centre, in two or three dimensions: the way to one class leads away from others."""
    num_vulnerable = num_found = 0
    for seed, num_classes, dim in itertools.product(range(2), (5, 10), (2, 3)):
        generator = torch.Generator().manual_seed(seed)
        centres = torch.rand(num_classes, dim, generator=generator, dtype=torch.float64)
        net = nn.Linear(dim, num_classes).double()
        with torch.no_grad():
            net.weight.copy_(20 * centres)
            net.bias.copy_(-10 * centres.square().sum(1))
        x = torch.rand(150, dim, generator=generator, dtype=torch.float64)
        y = own_labels(net, x)
        # A linear margin changes by at most eps times the dual norm of its slope.
        logits, slopes = net(x).detach(), (net.weight[None] - net.weight[y][:, None]).detach()
        highest = logits - logits.gather(1, y[:, None]) + threat.eps * slopes.norm(p=dual, dim=2)
        margins = highest.scatter(1, y[:, None], -torch.inf).amax(1)
        robust = evaluate(net, x, y, {"s": Strongest(threat=threat)}, probe_masking=False).robust["s"]
        assert robust[margins < -1e-9].all()
        num_vulnerable += int((margins > 1e-3).sum())
        num_found += int((~robust & (margins > 1e-3)).sum())
    assert num_vulnerable > 900
    assert num_found >= 0.995 * num_vulnerable, (num_found, num_vulnerable)
