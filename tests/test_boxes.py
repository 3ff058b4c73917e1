"""Boxes: the range of the pixels is a unit of length, and no verdict depends on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L0, L2, Attack, DeepFool, Linf, Surrogate, Transfer, Universal, WarmStarted, evaluate

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net

BOXES = [(-1.0, 1.0), (0.0, 255.0)]


class Ranged(nn.Sequential):
    """A net for pixels of [0, 1], given pixels of another range."""

    def __init__(self, net: nn.Sequential, box: tuple[float, float]) -> None:
        super().__init__(*net)
        self.low, self.width = box[0], box[1] - box[0]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.low) / self.width)


def ranged(attack: Attack, box: tuple[float, float]) -> Attack:
    """The attack in the same ball of pixels of another range."""
    threat = attack.threat
    eps = threat.eps * (1 if isinstance(threat, L0) else box[1] - box[0])
    return attack.inside(replace(threat, eps=eps, box=box))  # type: ignore[type-var]


@pytest.mark.parametrize("box", BOXES, ids=["-1 to 1", "0 to 255"])
@pytest.mark.parametrize(
    "attack",
    # Those that hold a net or a perturbation of their own hold it for one range.
    [pytest.param(a, id=name) for name, a in ATTACKS.items() if not isinstance(a, Transfer | Universal | WarmStarted)],
)
def test_verdicts_are_the_same_in_any_range_of_pixels(attack: Attack, box: tuple[float, float]) -> None:
    net, x = small_net(dtype=torch.float64).eval(), images(12, dtype=torch.float64)
    y = own_labels(net, x)
    expected = evaluate(net, x, y, {"a": attack}, probe_masking=False)
    wide = x * (box[1] - box[0]) + box[0]
    got = evaluate(Ranged(net, box).eval(), wide, y, {"a": ranged(attack, box)}, probe_masking=False)
    assert torch.equal(got.robust["a"], expected.robust["a"])


def test_deepfool_crosses_the_boundary_in_float32_in_any_range_of_pixels() -> None:
    """Near 255 float32 is spaced 1.5e-5."""
    net, x, box = small_net().eval(), images(400), (0.0, 255.0)
    y, attack = own_labels(net, x), DeepFool(threat=L2(eps=0.5))
    assert not evaluate(net, x, y, {"a": attack}, probe_masking=False).robust["a"].any()
    wide = evaluate(Ranged(net, box).eval(), 255 * x, y, {"a": ranged(attack, box)}, probe_masking=False)
    assert not wide.robust["a"].any()


@pytest.mark.parametrize("box", BOXES, ids=["-1 to 1", "0 to 255"])
def test_a_surrogate_learns_the_same_in_any_range_of_pixels(box: tuple[float, float]) -> None:
    x, others = (images(20, seed=seed, dtype=torch.float64) for seed in (0, 1))
    net, stand_in = (small_net(seed=seed, dtype=torch.float64) for seed in (0, 1))
    width, y = box[1] - box[0], own_labels(net, x)
    plain = Surrogate(threat=Linf(eps=0.1), net=stand_in, num_queries=60, num_epochs=2)
    wide = replace(plain, threat=Linf(eps=0.1 * width, box=box), net=Ranged(stand_in, box))
    here = evaluate(net, x, y, {"a": plain}, prepare_on=(others, own_labels(net, others)))
    there = evaluate(
        Ranged(net, box),
        x * width + box[0],
        y,
        {"a": wide},
        prepare_on=(others * width + box[0], own_labels(net, others)),
    )
    assert torch.equal(here.robust["a"], there.robust["a"])
