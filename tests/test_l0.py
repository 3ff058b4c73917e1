"""`L0`: projection and worst case against trying every set of pixels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.attacks import FGSM, L0, PGD, Attack, Margin, RandomNoise, SampleRng, Untargeted, evaluate

from .oracles import LinearModel, images, own_labels, small_net


@st.composite
def few_pixels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two channels of up to six pixels, a point outside, and a mask."""
    size = draw(st.integers(1, 6))
    numbers = st.lists(st.floats(0, 1, width=32), min_size=2 * size, max_size=2 * size)
    x, v = draw(numbers), draw(st.lists(st.floats(-3, 3, width=32), min_size=2 * size, max_size=2 * size))
    mask = draw(st.lists(st.booleans(), min_size=2 * size, max_size=2 * size).filter(any))
    return np.array(x).reshape(2, size), np.array(v).reshape(2, size), np.array(mask).reshape(2, size)


@given(few_pixels(), st.integers(1, 4))
@settings(deadline=None)
def test_no_set_of_pixels_is_nearer_than_the_projection(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], eps: int
) -> None:
    x, v, mask = drawn
    nearest = np.inf
    for chosen in combinations(range(x.shape[1]), min(eps, x.shape[1])):
        point = x.copy()
        point[:, chosen] = np.where(mask, np.clip(v, 0, 1), x)[:, chosen]
        nearest = min(nearest, ((point - v) ** 2).sum())
    threat = L0(eps=eps, mask=torch.tensor(mask)[None])
    got = threat.project(torch.tensor(v)[None], torch.tensor(x)[None])[0].numpy()
    assert ((got != x).any(0)).sum() <= eps
    assert np.array_equal(got[~mask], x[~mask])
    assert got.min() >= 0
    assert got.max() <= 1
    assert ((got - v) ** 2).sum() == pytest.approx(nearest, abs=1e-9)


@pytest.mark.parametrize("box", [(0.0, 1.0), None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projected_points_are_contained_and_stay_where_they_are(
    box: tuple[float, float] | None, dtype: torch.dtype
) -> None:
    x = images(50, shape=(3, 6, 6), dtype=dtype)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    threat = L0(eps=torch.arange(1, 51), box=box)
    projected = threat.project(far, x)
    assert threat.contains(projected, x).all()
    assert torch.equal(threat.project(projected, x), projected)
    assert torch.equal(threat.distance(projected, x), torch.arange(1, 51).clamp_max(36).to(dtype))


def test_one_pixel_more_is_not_contained() -> None:
    x = torch.full((1, 3, 4, 4), 0.5)
    three = x.clone()
    three[0, :, 0, :3] = 0.5 + 1e-7  # every channel of three pixels
    assert L0(eps=3).contains(three, x).all()
    assert not L0(eps=2).contains(three, x).any()


def test_starts_change_eps_random_pixels_by_any_amount() -> None:
    x = torch.full((4000, 2, 2, 3), 0.25)
    start = L0(eps=2).start(x, SampleRng.numbered(4000))
    changed = (start != x).any(1).flatten(1)
    assert (changed.sum(1) == 2).all()
    assert torch.allclose(changed.float().mean(0), torch.full((6,), 1 / 3), atol=0.03)
    values = start[start != x]
    assert torch.allclose(values.quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize(("box", "low", "high"), [((-1, 3), -1, 3), (None, 0.25 - 1, 0.25 + 1)])
def test_starts_are_drawn_from_the_box_and_without_one_from_as_far_on_both_sides(
    box: tuple[float, float] | None, low: float, high: float
) -> None:
    x = torch.full((4000, 1, 2, 3), 0.25)
    start = L0(eps=2, box=box).start(x, SampleRng.numbered(4000))
    shares = (start[start != x] - low) / (high - low)
    assert torch.allclose(shares.quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize(
    ("attack", "share"),
    [(FGSM(threat=L0(eps=2)), 0.7), (PGD(threat=L0(eps=2), objective=Untargeted(loss=Margin()), num_steps=40), 0.95)],
)
def test_on_a_linear_model_it_finds_the_samples_that_some_two_pixels_turn(attack: Attack, share: float) -> None:
    model = LinearModel(num_classes=2, seed=1)
    with torch.no_grad():
        model.linear.bias.zero_()
        model.linear.bias[0] = 2.7
    x = torch.rand(60, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(1)
    weight = model.linear.weight.detach().numpy()
    logits = model(x).detach().numpy()
    rows = np.arange(len(x))
    margin = logits[rows, 1 - y.numpy()] - logits[rows, y.numpy()]
    slope = (weight[1 - y.numpy()] - weight[y.numpy()]).reshape(60, 2, 6)
    at = x.numpy().reshape(60, 2, 6)
    gain = np.where(slope > 0, slope * (1 - at), -slope * at).sum(1)
    best = np.array([max(sum(row[list(c)]) for c in combinations(range(6), 2)) for row in gain])
    falls = margin + best > 0
    found = evaluate(model, x, y, {"a": attack}).success["a"].numpy()
    assert 10 < falls.sum() < 60
    assert not (found & ~falls).any()
    assert found.sum() >= share * falls.sum()


def test_pgd_turns_more_than_one_step_and_that_more_than_noise() -> None:
    net, x = small_net().eval(), images(200)
    threat = L0(eps=2)
    attacks = {"pgd": PGD(threat=threat), "fgsm": FGSM(threat=threat), "noise": RandomNoise(threat=threat)}
    report = evaluate(net, x, own_labels(net, x), attacks)
    turned = {name: int(success.sum()) for name, success in report.success.items()}
    assert turned["pgd"] > turned["fgsm"] > turned["noise"]


@pytest.mark.parametrize("eps", [0.5, 1.5, torch.tensor([1.0, 2.5])])
def test_half_a_pixel_is_an_error(eps: object) -> None:
    with pytest.raises(ValueError, match=r"L0\(eps=...\) must be a whole number of pixels >= 1, got \d.5"):
        L0(eps=eps)  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [0, -1, float("nan"), torch.tensor([1, 0])])
def test_no_pixel_is_an_error(eps: object) -> None:
    with pytest.raises(ValueError, match=r"L0\(eps=...\) must be > 0"):
        L0(eps=eps)  # type: ignore[arg-type]
