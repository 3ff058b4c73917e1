"""Climbs inside L1 by many pixels, where the margin bends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L1, SampleRng, Strongest, evaluate
from touchstone.attacks.cascade import climbs as of_cascade
from touchstone.attacks.cascade.climbs import Climbs
from touchstone.attacks.cascade.closing_in import climb_closing_in
from touchstone.attacks.cascade.gain import Gain
from touchstone.attacks.cascade.survivors import Survivors

from .oracles import images


class Satiable(nn.Module):
    """Every pixel leads towards the boundary, and each by less the further it has moved."""

    def forward(self, x: Tensor) -> Tensor:
        risen = 1 - torch.exp(-20 * (x.flatten(1) - 0.5))
        margin = (risen * torch.linspace(1, 1.2, risen.shape[1])).sum(1) - 14
        return torch.stack([-margin, margin], 1)


@dataclass(frozen=True, eq=False, repr=False)
class Rising(L1):
    """No pixel may fall."""

    def _noise(self, x: Tensor, rng: SampleRng) -> Tensor:
        return super()._noise(x, rng).abs()

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return super()._project(x_adv.maximum(x), x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return super().contains(x_adv, x) & (x_adv >= x).flatten(1).all(1)


@pytest.mark.parametrize(
    "threat", [L1(eps=1), L1(eps=torch.linspace(1, 2, 16)), Rising(eps=1)], ids=["one eps", "eps per sample", "own"]
)
def test_where_the_margin_bends_many_pixels_move_by_little(threat: L1) -> None:
    """Of 144 pixels 30 lead beyond the boundary if they share eps, and no dozen does."""
    x, y = torch.full((16, 1, 12, 12), 0.5), torch.zeros(16, dtype=torch.int64)
    report = evaluate(Satiable(), x, y, {"s": Strongest(threat=threat)}, probe_masking=False)
    assert report.success["s"].all()
    assert report.cost["s"].num_backwards / len(x) <= 12  # by corners alone 40


@pytest.mark.parametrize("eps", [1.0, torch.linspace(0.7, 1.1, 16)], ids=["one eps", "eps per sample"])
@pytest.mark.parametrize(("pixels_per_eps", "factor", "rank"), [(None, 1, None), (None, 3, 0), (15, 3, None)])
def test_a_dense_climb_begins_and_steps_as_asked_and_says_whom_it_has_brought_on(
    monkeypatch: pytest.MonkeyPatch, eps: float | Tensor, pixels_per_eps: int | None, factor: float, rank: int | None
) -> None:
    x, y = torch.full((16, 1, 12, 12), 0.5), torch.zeros(16, dtype=torch.int64)
    threat, given = L1(eps=eps), {}
    survivors = Survivors(threat, 60, Satiable(), x, y, SampleRng.numbered(16))
    climbs, everyone = Climbs(survivors), survivors.everyone
    climbs.by_corners(everyone, num_steps=5, factor=1, gain=Gain(smooth=True))
    left = survivors.highest / survivors.first

    def climb(*args: Any, **kwargs: Any) -> Tensor:
        given.update(kwargs)
        return climb_closing_in(*args, **kwargs)

    monkeypatch.setattr(of_cascade, "climb_closing_in", climb)
    brought_on = climbs.densely(
        everyone, num_steps=20, factor=factor, pixels_per_eps=pixels_per_eps, gain=Gain(rank=rank, sharp=True)
    )
    assert (given["threat"].pixels_per_eps, given["factor"]) == (pixels_per_eps, factor)
    distance = threat.distance(given["start"], x) / torch.as_tensor(eps)
    assert float(distance.max()) <= factor + 1e-5
    assert float(distance.max()) > 0.9 * factor  # of a ball in 144 dimensions nearly all is near its surface
    has_gained = left - survivors.highest / survivors.first > 0.005
    assert has_gained.any()
    assert brought_on.tolist() == (has_gained & ~survivors.fallen).nonzero()[:, 0].tolist()
    assert threat.contains(survivors.best, x).all()
    assert not len(climbs.densely(everyone, num_steps=20, factor=1, gain=Gain(rank=1)))  # of two classes
    assert not len(climbs.densely(everyone, num_steps=60, factor=1))  # beyond the budget


class Fixed(nn.Module):
    """Gives the same logits for whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_tensor([[10.0, 4.0, 4.0, 2.0]]).expand(len(x), -1)


def test_a_sharp_margin_is_nearly_that_over_the_nearest_class() -> None:
    """Of gaps of -6, -6 and -8, softened by 0.4 and by 0.07 of the first margin."""
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    survivors = Survivors(L1(eps=1), 60, Fixed(), x, y, SampleRng.numbered(3))
    survivors.first.fill_(-6)
    survivors.first_gaps = survivors.gaps(x, survivors.everyone)
    survivors.finish(survivors.everyone, x)  # after the first climb nothing looks for jumps
    survivors.highest.fill_(-6)
    for sharp, scale in ((False, 2.4), (True, 0.42)):
        gain, reached = survivors.measure(survivors.everyone, Gain(sharp=sharp))(x, survivors.everyone)
        expected = scale * math.log(2 * math.exp(-6 / scale) + math.exp(-8 / scale))
        assert gain.tolist() == pytest.approx([expected] * 3, rel=1e-5)
        assert not reached.any()
