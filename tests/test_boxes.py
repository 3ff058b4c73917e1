"""Boxes: the range of the pixels is a unit of length, and no verdict depends on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    L0,
    L1,
    L2,
    PGD,
    Attack,
    DeepFool,
    Linf,
    Surrogate,
    Transfer,
    Universal,
    WarmStarted,
    evaluate,
)
from touchstone.attacks.threats.ball import Ball

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


INEXACT = [((0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081), (-2.2, 2.7), (0.1, 0.9)]


@pytest.mark.parametrize("box", INEXACT, ids=["of MNIST, normalized", "outwards", "inwards"])
@pytest.mark.parametrize("given", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", [Linf, L2, L1, L0])
def test_ends_of_a_box_that_float32_does_not_have_are_those_next_to_them(
    kind: type[Ball], given: torch.dtype, box: tuple[float, float]
) -> None:
    low, high = (float(np.float32(end)) for end in box)
    x = (images(8) * 9 - 4).to(given).clamp(*box)
    assert float(x.float().min()) == low
    assert float(x.float().max()) == high
    net, threat = small_net().eval(), kind(eps=0.3 if kind is Linf else 1, box=box)
    report = evaluate(net, x, own_labels(net, x.float()), {"pgd": PGD(threat=threat)}, keep_adversarial=True)
    assert float(report.x_adv["pgd"].min()) >= low
    assert float(report.x_adv["pgd"].max()) <= high
    beyond = x.float().where(x < x.max(), np.nextafter(np.float32(high), np.float32(9)))
    assert not threat.contains(beyond, x.float()).all()
    with pytest.raises(ValueError, match=r"images must lie in .* clip them by `x.clamp\(.*\)`"):
        threat.check_input(beyond)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_pixels_that_rounding_moved_out_of_the_box_are_in_it_once_they_are_clipped_as_the_message_says(
    dtype: torch.dtype,
) -> None:
    x = torch.tensor([[0.7654321, 0.4]]).to(dtype)
    _advice_is_to_clip(Linf(eps=0.1, box=(0.0, float(x.max()) * (1 - 2e-4))), x)


@pytest.mark.parametrize(
    ("dtype", "box"), [(torch.bfloat16, (-2.2, 2.7)), (torch.bfloat16, (-100.3, 0.0)), (torch.float16, (0.0, 200.7))]
)
def test_ends_that_half_precision_rounds_outwards_are_rounding_however_coarse(
    dtype: torch.dtype, box: tuple[float, float]
) -> None:
    x = torch.tensor([[-900.0, 900, 0]]).to(dtype).clamp(*box)
    _advice_is_to_clip(Linf(eps=0.1, box=box), x)


def _advice_is_to_clip(threat: Ball, x: Tensor) -> None:
    with pytest.raises(ValueError, match="rounding may move them so far") as error:
        threat.check_input(x)
    advice = str(error.value).rpartition("clip them by `")[2].rstrip("`")
    threat.check_input(eval(advice, {"x": x}))


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


@pytest.mark.parametrize("box", BOXES, ids=["-1 to 1", "0 to 255"])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=2.5), L0(eps=3)], ids=lambda t: type(t).__name__)
def test_a_universal_perturbation_is_the_same_in_any_range_of_pixels(threat: Ball, box: tuple[float, float]) -> None:
    others, width = images(40, seed=1, dtype=torch.float64), box[1] - box[0]
    net = small_net(dtype=torch.float64)
    y, plain = own_labels(net, others), Universal(threat=threat, num_epochs=3, batch_size=16)
    here = plain.prepare(net, others, y)
    there = ranged(plain, box).prepare(Ranged(net, box), others * width + box[0], y)
    assert isinstance(here, Universal)
    assert isinstance(there, Universal)
    assert here.perturbation is not None
    assert there.perturbation is not None
    assert torch.allclose(there.perturbation, width * here.perturbation, atol=1e-9)
