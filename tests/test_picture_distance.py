"""The distance of two pictures by the features of a net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from touchstone.callbacks.parts.measures.feature_distance import feature_distance

from .oracles import images, small_net


def test_it_is_the_equation_of_lpips_written_out_for_every_position() -> None:
    net, x, other = small_net(seed=3).eval(), images(3, seed=1), images(3, seed=2)
    with torch.no_grad():
        found = feature_distance(net, ["0", "2"], x, other)
        parts = [(net[:1](x), net[:1](other)), (net[:3](x), net[:3](other))]
    expected = np.zeros(3)
    for one, two in parts:
        for row in range(3):
            squares = []
            for h in range(6):
                for w in range(6):
                    a, b = one[row, :, h, w].numpy(), two[row, :, h, w].numpy()
                    a, b = (v / max(np.sqrt((v * v).sum()), 1e-30) for v in (a, b))
                    squares.append(((a - b) ** 2).sum())
            expected[row] += np.mean(squares)
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_equal_pictures_have_none_and_brightness_of_features_does_not_count() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False))
    x = images(2, seed=1)
    with torch.no_grad():
        assert torch.equal(feature_distance(net, ["0"], x, x), torch.zeros(2))
        assert feature_distance(net, ["0"], x, x / 2).max() < 1e-10
        assert torch.allclose(feature_distance(net, ["0"], x, -x), torch.full((2,), 4.0))


def test_vectors_have_a_distance_too_and_a_missing_layer_is_named() -> None:
    net, x = small_net(seed=3).eval(), images(2, seed=1)
    assert feature_distance(net, ["5"], x, images(2, seed=5)).shape == (2,)
    with pytest.raises(ValueError, match=r"feature_distance\(layer='9'\) must be a layer of Sequential"):
        feature_distance(net, ["9"], x, x)


def test_the_features_of_tokens_are_their_last_axis() -> None:
    net = nn.Sequential(nn.Conv2d(1, 5, 2, stride=2), nn.Flatten(2), Transposed(), nn.Linear(5, 4)).double()
    x, other = (images(3, seed=seed).double() for seed in (1, 2))
    with torch.no_grad():
        found = feature_distance(net, ["3"], x, other)
        one, two = (net(pictures).numpy() for pictures in (x, other))
    one, two = (tokens / np.sqrt((tokens**2).sum(2, keepdims=True)) for tokens in (one, two))
    assert np.allclose(found.numpy(), ((one - two) ** 2).sum(2).mean(1), atol=1e-12)


class Transposed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)
