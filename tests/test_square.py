"""`Square`: its windows as published, and what it finds without a gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L1, L2, Linf, SampleRng, Square, Untargeted, evaluate
from touchstone.attacks.square import _inside, _peak, _Peaks, _Squares
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images, own_labels, small_net


def test_the_windows_shrink_as_published() -> None:
    """Halved after these queries of 10,000, rescaled to other numbers of queries."""
    square, half = Square(threat=Linf(eps=0.1), num_queries=10_000), Square(threat=Linf(eps=0.1), num_queries=5000)
    shares = {0: 0.8, 10: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625}
    shares |= {6001: 0.003125, 8001: 0.0015625, 9999: 0.0015625}
    for query, share in shares.items():
        assert square._share(query) == pytest.approx(share)
        assert half._share((query + 1) // 2) == pytest.approx(share)
        assert replace(half, schedule_queries=10_000)._share(query) == pytest.approx(share)


@pytest.mark.parametrize(("height", "width", "side"), [(6, 6, 6), (6, 6, 1), (7, 4, 3)])
def test_a_window_is_a_square_at_any_place_with_equal_chance(height: int, width: int, side: int) -> None:
    num = 20_000
    numbers = SampleRng.numbered(num).uniform(torch.empty(num, 2))
    inside = _inside(numbers, height, width, side)[:, 0]
    rows, columns = inside.any(2), inside.any(1)
    assert (rows.sum(1) == side).all()
    assert (columns.sum(1) == side).all()
    assert (inside.sum((1, 2)) == side**2).all()
    places = torch.stack([rows.float().argmax(1), columns.float().argmax(1)], 1)
    expected = 1 / ((height - side + 1) * (width - side + 1))
    counts = torch.unique(places, dim=0, return_counts=True)[1] / num
    assert len(counts) == 1 / expected
    assert np.allclose(counts, expected, atol=0.01)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (2, 5), (3, 5), (7, 3), (4, 9)])
@pytest.mark.parametrize("power", [2, 4])
def test_a_peak_is_the_sum_of_squares_around_the_middle(height: int, width: int, power: int) -> None:
    """Drawn square by square."""
    expected = np.zeros((height, width))
    for k in range(1, max(height, width) // 2 + 2):
        top, left = height // 2 - k + 1, width // 2 - k + 1
        expected[max(top, 0) : top + 2 * k - 1, max(left, 0) : left + 2 * k - 1] += 1 / k**power
    assert np.allclose(_peak(height, width, power), expected)


def test_inside_linf_every_pixel_is_at_an_end_of_its_range() -> None:
    x, threat, rng = images(16, shape=(3, 8, 8)), Linf(eps=0.3), SampleRng.numbered(16)
    windows = _Squares(threat)
    points = windows.first(x, rng)
    low, high = (x - 0.3).clamp(0, 1), (x + 0.3).clamp(0, 1)
    assert torch.equal(points[:, :, :1] > x[:, :, :1], (points > x)[:, :, :1])
    assert ((points > x) == (points > x)[:, :, :1]).all()  # vertical stripes
    for query in range(30):
        after = windows.changed(points, x, 0.2, rng.fold(query))
        changed = (after != points).any(1)
        assert (changed.sum((1, 2)) <= 16).all()  # sqrt(0.2 * 64), rounded, is 4
        assert (torch.isclose(after, low) | torch.isclose(after, high)).all()
        points = after


@pytest.mark.parametrize("threat", [L2(eps=0.5), L2(eps=0.5, box=None), L1(eps=3), L1(eps=3, box=None)])
def test_inside_l2_and_l1_a_window_takes_over_what_was_spent(threat: Ball) -> None:
    x, rng = images(8, shape=(3, 10, 10), dtype=torch.float64), SampleRng.numbered(8)
    windows = _Peaks(threat)
    points = windows.first(x, rng)
    for query in range(40):
        assert threat.contains(points, x).all()
        # The whole of the ball is used (in the box, as far as the box lets it).
        length = threat.distance(points, x)
        assert (length > (0.5 if threat.box else 0.999) * float(threat.eps)).all()  # type: ignore[arg-type]
        points = windows.changed(points, x, 0.2, rng.fold(query))


@pytest.mark.parametrize(("threat", "least"), [(L2(eps=1.5), 0.9), (L1(eps=6), 0.99)], ids=["l2", "l1"])
def test_what_the_box_takes_away_is_spent_again(threat: Ball, least: float) -> None:
    """On pixels beside the box half of all changes are cut, and without that the length would die away."""
    x, rng = (images(8, shape=(3, 10, 10), dtype=torch.float64) > 0.5) * 0.9 + 0.05, SampleRng.numbered(8)
    windows = _Peaks(threat)
    points = windows.first(x.double(), rng)
    for query in range(60):
        points = windows.changed(points, x.double(), 0.2, rng.fold(query))
    assert threat.distance(points, x).median() > least * float(threat.eps)  # type: ignore[arg-type]


def test_windows_of_a_sample_do_not_depend_on_its_batch() -> None:
    x, rng = images(8, shape=(3, 10, 10)), SampleRng.numbered(8)
    for windows in (_Squares(Linf(eps=0.1)), _Peaks(L2(eps=0.5)), _Peaks(L1(eps=3))):
        points = windows.first(x, rng)
        after = windows.changed(points, x, 0.2, rng.fold(1))
        for row in range(8):
            here = torch.tensor([row])
            alone = windows.first(x[here], rng.take(here))
            assert torch.allclose(alone, points[here], atol=1e-6)
            assert torch.allclose(windows.changed(alone, x[here], 0.2, rng.take(here).fold(1)), after[here], atol=1e-6)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.6), L1(eps=3)], ids=["linf", "l2", "l1"])
def test_no_gradient_is_needed(threat: Ball) -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.detach())

    net, x = Blind().eval(), images(32)
    report = evaluate(net, x, own_labels(net, x), {"a": Square(threat=threat, num_queries=100)})
    assert report.success["a"].float().mean() > 0.5
    assert report.cost["a"].num_backwards == 0


def test_a_change_that_reaches_the_goal_is_kept_though_the_gain_does_not_grow() -> None:
    class Flat(Untargeted):
        def gain(self, logits: Tensor, y: Tensor) -> Tensor:
            return 0 * logits[:, 0]

    net, x = small_net().eval(), images(48)
    y, threat = own_labels(net, x), Linf(eps=0.05)
    few, many = (
        evaluate(net, x, y, {"a": Square(threat=threat, num_queries=num, objective=Flat())}).success["a"].sum()
        for num in (1, 200)
    )
    assert many > few


def test_more_queries_come_nearer_to_the_worst_case_of_a_linear_model() -> None:
    """Inside Linf the worst case is a corner, which random signs of windows reach only one by one."""
    model = LinearModel(num_features=36, num_classes=2, dtype=torch.float32)
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([90.0, -90.0]))
    x = images(16)
    y, threat = model(x).argmax(1), Linf(eps=0.05)
    slope = (model.linear.weight[1] - model.linear.weight[0]).detach()
    best = 0.05 * slope.abs().sum()
    shares = []
    for num_queries in (10, 100, 1000):
        x_adv = Square(threat=threat, num_queries=num_queries)(model, x, y)
        shares.append(float(((x_adv - x).flatten(1) @ slope).mean() / best))
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95


def test_what_is_no_image_is_an_error() -> None:
    model = LinearModel(num_features=36, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"Square needs images `\(N, C, H, W\)`, got the shape \(4, 36\)"):
        Square(threat=Linf(eps=0.1))(model, images(4).flatten(1), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_queries": 0}, r"Square\(num_queries=...\) must be >= 1"),
        ({"schedule_queries": 0}, r"Square\(schedule_queries=...\) must be >= 1"),
        ({"initial_share": "all"}, r"Square\(initial_share=...\) must be a number, got 'all'"),
        ({"initial_share": 0}, r"Square\(initial_share=...\) must be in \(0, 1\]"),
    ],
)
def test_what_is_outside_its_range_is_an_error(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Square(threat=Linf(eps=0.1), **options)  # type: ignore[arg-type]
