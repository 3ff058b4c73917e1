"""Pictures that a dream leaves as they began: what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import dream
from touchstone.attacks.dreaming import octave_climb


def test_a_picture_without_a_gradient_stays_and_it_is_said() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.constant_(net[0].bias, -5.0)
    x = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.9)])  # of the first no unit is awake
    with pytest.warns(UserWarning, match=r"layer='1'\): 1 of 2 pictures stay as they began; of 1, no gradient"):
        dreamt = dream(net, "1", x, num_steps=2)
    assert torch.equal(dreamt[0], x[0])
    assert not torch.equal(dreamt[1], x[1])


class SumsOfKinds(nn.Module):
    """The sum of a picture's pixels; not a number where the first one is below a half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.sum((1, 2, 3)) * torch.where(x[:, 0, 0, 0] < 0.5, torch.nan, 1.0))[:, None]


def test_what_keeps_a_picture_as_it_began_is_said() -> None:
    """White can only grow darker, and its sum only larger; of black the response is NaN; grey moves."""
    white, black, grey = (torch.full((3, 8, 8), value) for value in (1.0, 0.0, 0.6))
    with pytest.warns(UserWarning, match="3 of 4 pictures stay as they began; of 1, the response .* is NaN") as told:
        dreamt = dream(SumsOfKinds(), "", torch.stack([white, black, white, grey]), num_steps=1)
    assert "of 2, no step along their gradient leads anywhere inside [0, 1]" in str(told[0].message)
    assert "no gradient comes" not in str(told[0].message)
    assert [bool((dreamt[row] != start).any()) for row, start in enumerate((white, black, white, grey))] == [
        *(False, False, False, True)
    ]


@pytest.mark.parametrize("options", [{}, {"decorrelated": True}, {"smoothing": 1.0}], ids=str)
def test_steps_that_are_too_small_for_a_pixel_are_called_so(options: dict[str, Any]) -> None:
    grey = torch.full((1, 3, 8, 8), 0.6)
    with pytest.warns(
        UserWarning, match="began; of 1, the steps are too small to change a pixel: take a larger"
    ) as told:
        dream(SumsOfKinds(), "", grey, num_steps=1, step_size=1e-12, **options)
    assert "saturated" not in str(told[0].message)


def test_why_pictures_stay_is_asked_of_as_few_at_once_as_are_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, sizes = SumsOfKinds(), []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 2 * 8 * 8)
    with pytest.warns(UserWarning, match="5 of 5 pictures stay"):
        dream(net, "", torch.ones(5, 3, 8, 8), num_steps=1)
    assert max(sizes) == 2
