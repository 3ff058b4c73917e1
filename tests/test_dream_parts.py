"""What a dream is made of, each part in closed form or against another library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from touchstone.attacks import PGD, dream
from touchstone.attacks.dream import start_of
from touchstone.attacks.dreaming.canvas import Canvas
from touchstone.attacks.dreaming.fourier import Fourier
from touchstone.attacks.dreaming.jitter import jittered
from touchstone.attacks.dreaming.octaves import octave_sizes
from touchstone.attacks.dreaming.smoothing import blur
from touchstone.attacks.dreaming.total_variation import total_variation


def test_of_a_linear_layer_one_step_goes_along_its_weight() -> None:
    """The closed form: the gradient of a unit is its weight, scaled to a root mean square of 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 4)).double()
    x = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    weight = net[1].weight[2].detach()
    expected = 0.5 + 0.01 * weight / weight.square().mean().sqrt()
    found = dream(net, "1:2", x, num_steps=1, step_size=0.01)
    assert torch.allclose(found.flatten(1), expected.expand(2, -1), atol=1e-12)


def step_of_a_unit(weight: np.ndarray, x: np.ndarray, **options: Any) -> np.ndarray:
    """Where one step of a dream leads from a picture, `(C, H, W)`, that a unit sees with these weights."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.size, 1)).double()
    net[1].weight.data = torch.from_numpy(weight).reshape(1, -1)
    start = torch.from_numpy(x)[None]
    return ((dream(net, "1:0", start, num_steps=1, step_size=1e-3, **options) - start) / 1e-3)[0].numpy()


def weight_and_picture() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 6, 7)), rng.uniform(0.2, 0.8, (3, 6, 7))


def test_the_price_of_variation_is_climbed_down() -> None:
    """The slope of the variation at a pixel: twice the sum of its differences to its neighbours."""
    weight, x = weight_and_picture()
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    slope = 2 * (4 * x - wide[:, :-2, 1:-1] - wide[:, 2:, 1:-1] - wide[:, 1:-1, :-2] - wide[:, 1:-1, 2:])
    expected = weight - 0.7 * slope
    found = step_of_a_unit(weight, x, variation_penalty=0.7)
    assert np.allclose(found, expected / np.sqrt((expected**2).mean()), atol=1e-9)


def test_smoothing_leads_along_the_smoothed_gradient() -> None:
    from scipy.ndimage import gaussian_filter

    weight, x = weight_and_picture()
    expected = np.stack([gaussian_filter(channel, 0.9, mode="nearest", radius=3) for channel in weight])
    found = step_of_a_unit(weight, x, smoothing=0.9)
    assert np.allclose(found, expected / np.sqrt((expected**2).mean()), atol=1e-9)


def test_jitter_leads_along_the_shifted_gradient() -> None:
    """Of 60 seeds, to each of the nine places."""
    weight, x = weight_and_picture()
    expected = weight / np.sqrt((weight**2).mean())
    places = [np.roll(expected, (down, across), (1, 2)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    found = [step_of_a_unit(weight, x, jitter=1, seed=seed) for seed in range(60)]
    is_at = np.array([[np.allclose(step, place, atol=1e-9) for place in places] for step in found])
    assert is_at.any(1).all()
    assert is_at.any(0).all()


def test_the_norm_of_a_linear_layer_ends_along_its_first_singular_vector() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 6, bias=False)).double()
    with torch.no_grad():
        net[1].weight -= net[1].weight.mean(1, keepdim=True)  # plain grey is nothing to it
        net[1].weight[0] *= 4
    x = 0.5 + 1e-3 * torch.randn(1, 3, 4, 4, dtype=torch.float64)
    change = (dream(net, "1", x, num_steps=300, step_size=1e-4) - 0.5).flatten()
    first = torch.linalg.svd(net[1].weight.detach()).Vh[0]
    assert abs(float(change @ first / change.norm())) > 0.99


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_step_has_its_length_however_small_or_large_the_gradient(size: float) -> None:
    grad = torch.stack([size * torch.randn(3, 8, 8), torch.zeros(3, 8, 8)])
    for canvas in (Canvas(), Canvas(smoothing=1.0), Canvas(box=None)):
        direction = canvas.direction(grad).double().numpy()
        assert np.sqrt((direction[0] ** 2).mean()) == pytest.approx(1, rel=1e-5)
        assert not direction[1].any()


@pytest.mark.parametrize(
    ("box", "largest", "message"),
    [
        ((0.0, 1.0), 2.0, r"pixels in \[0, 1\], got values from 2 to 2"),
        ((-1.0, 3.0), 4.0, r"pixels in \[-1, 3\], got values from 4 to 4"),
        (None, float("inf"), "finite, got values from inf to inf"),
    ],
)
def test_a_canvas_says_what_it_takes_whoever_asks(
    box: tuple[float, float] | None, largest: float, message: str
) -> None:
    attack = PGD(threat=Canvas(box=box), num_steps=1)
    with pytest.raises(ValueError, match=f"^pictures must be {message}$"):
        attack(nn.Flatten(), torch.full((1, 3, 2, 2), largest), torch.tensor([0]))


def test_fourier_coefficients_give_the_picture_back() -> None:
    for size in ((16, 16), (9, 14)):
        x = 0.1 + 0.8 * torch.rand(2, 3, *size, dtype=torch.float64)
        fourier = Fourier(size)
        assert torch.allclose(fourier.picture(fourier.coefficients(x)), x, atol=1e-10)


def test_a_decorrelated_start_is_smoother_than_a_uniform_one() -> None:
    net, shape = nn.Conv2d(3, 1, 3), (1, 3, 32, 32)
    smooth, rough = (start_of(net, shape, decorrelated=flag) for flag in (True, False))
    share = [float(total_variation(x) / (x - x.mean()).square().sum()) for x in (smooth, rough)]
    assert share[0] < share[1] / 2


def test_total_variation_is_that_of_numpy() -> None:
    x = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    expected = [sum(np.square(np.diff(picture, axis=axis)).sum() for axis in (1, 2)) for picture in x.numpy()]
    assert np.allclose(total_variation(x), expected)


def test_blur_is_scipys_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    x = torch.rand(1, 2, 12, 15, dtype=torch.float64)
    expected = [gaussian_filter(channel.numpy(), 1.3, mode="nearest", radius=4) for channel in x[0]]
    assert np.allclose(blur(x, 1.3)[0].numpy(), expected, atol=1e-12)


def test_jitter_is_a_roll_by_at_most_so_many_pixels() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    rolled = [jittered(x, 1, seed=0, step=step) for step in range(40)]
    allowed = [torch.roll(x, (down, across), (2, 3)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    assert all(any(torch.equal(found, other) for other in allowed) for found in rolled)
    assert all(any(torch.equal(found, other) for found in rolled) for other in allowed)


def test_octaves_grow_to_the_size_of_the_picture() -> None:
    assert octave_sizes((64, 32), 3, 2.0) == [(16, 8), (32, 16), (64, 32)]
    assert octave_sizes((8, 8), 4, 2.0) == [(8, 8)]
    assert octave_sizes((64, 32), 10**6, 1e200) == [(8, 8), (64, 32)]
