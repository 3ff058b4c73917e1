"""Masks: inside one a threat is the threat of fewer pixels, and outside it nothing changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor, nn

from touchstone.attacks import (
    EAD,
    FAB,
    FGSM,
    L0,
    L1,
    L2,
    PGD,
    Attack,
    CarliniWagner,
    DeepFool,
    L1Adam,
    Linf,
    RandomNoise,
    SampleRng,
    Threat,
    evaluate,
)
from touchstone.attacks.threats.ball import Ball

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net
from .test_threats import l1_projection_by_root_finding, l2_projection_by_root_finding

FLOATS = st.floats(0, 1, width=32)
THREATS = [Linf(eps=0.1), L2(eps=0.5), L1(eps=0.8)]

every_threat = pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2", "l1"])


def masks(num_samples: int, shape: tuple[int, ...] = (1, 6, 6), share: float = 0.4) -> Tensor:
    mask = torch.rand(num_samples, *shape, generator=torch.Generator().manual_seed(7)) < share
    mask[:, 0, 0, 0] = True
    return mask


@st.composite
def masked_pixels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 8))
    x = draw(st.lists(FLOATS, min_size=size, max_size=size))
    v = draw(st.lists(st.floats(-3, 3, width=32), min_size=size, max_size=size))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return np.array(x), np.array(v), np.array(mask)


@given(masked_pixels(), st.floats(1e-3, 1))
@settings(deadline=None)
def test_projection_is_the_one_of_the_free_pixels(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], eps: float) -> None:
    x, v, mask = drawn
    free = {
        Linf: np.clip(v[mask], np.maximum(x[mask] - eps, 0), np.minimum(x[mask] + eps, 1)),
        L2: l2_projection_by_root_finding(v[mask], x[mask], eps),
        L1: l1_projection_by_root_finding(v[mask], x[mask], eps),
    }
    for kind, expected in free.items():
        threat = kind(eps=eps, mask=torch.tensor(mask)[None])
        got = threat.project(torch.tensor(v)[None], torch.tensor(x)[None])
        assert np.allclose(got[0].numpy()[mask], expected, atol=1e-6)
        assert np.array_equal(got[0].numpy()[~mask], x[~mask])
        assert threat.contains(got, torch.tensor(x)[None]).all()


@every_threat
@pytest.mark.parametrize("rows", [1, 50])
def test_starts_and_projections_change_nothing_outside(threat: Ball, rows: int) -> None:
    x, mask = images(50), masks(rows)
    masked = replace(threat, mask=mask)  # type: ignore[type-var]
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for points in (masked.start(x, SampleRng.numbered(50)), masked.project(far, x)):
        assert masked.contains(points, x).all()
        assert torch.equal(torch.where(mask, x, points), x)
        assert ((points != x) & mask).flatten(1).any(1).all()


@every_threat
def test_starts_fill_the_ball_of_the_free_pixels(threat: Ball) -> None:
    mask = torch.tensor([[True, False, True, False]])
    x = torch.full((2000, 4), 0.5)
    masked = replace(threat, mask=mask, box=None)  # type: ignore[type-var]
    fewer = replace(threat, box=None).start(x[:, :2], SampleRng.numbered(2000, seed=1))  # type: ignore[type-var]
    start = masked.start(x, SampleRng.numbered(2000))
    quantiles = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    inside = threat.distance(start, x).double().quantile(quantiles)
    expected = threat.distance(fewer, x[:, :2]).double().quantile(quantiles)
    assert torch.allclose(inside, expected, atol=0.05 * float(threat.eps))


@every_threat
def test_directions_are_those_of_the_free_pixels(threat: Ball) -> None:
    grad = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(1, 40, generator=torch.Generator().manual_seed(1)) < 0.5
    masked = replace(threat, mask=mask)  # type: ignore[type-var]
    got = masked.direction(grad)
    assert torch.allclose(got[:, mask[0]], threat.direction(grad[:, mask[0]]))
    assert (got[:, ~mask[0]] == 0).all()
    assert torch.allclose(torch.linalg.vector_norm(got, ord=threat.p, dim=1), torch.ones(5))


@every_threat
def test_the_slightest_change_outside_is_not_contained(threat: Ball) -> None:
    x = images(3, dtype=torch.float64)
    mask = masks(1)
    masked = replace(threat, mask=mask)  # type: ignore[type-var]
    changed = torch.where(mask, x, x + 1e-15)
    assert threat.contains(changed, x).all()
    assert not masked.contains(changed, x).any()
    assert masked.distance(changed, x).isinf().all()


@every_threat
def test_one_mask_per_sample_is_cut_with_the_samples(threat: Ball) -> None:
    x, mask = images(6), masks(6)
    masked = replace(threat, mask=mask)  # type: ignore[type-var]
    far = x + 1
    whole, rows = masked.project(far, x), torch.tensor([4, 1])
    assert torch.equal(masked.take(rows).project(far[rows], x[rows]), whole[rows])
    assert torch.equal(masked.take(torch.arange(6) == 1).mask, mask[1:2])
    shared = replace(threat, mask=mask[:1])  # type: ignore[type-var]
    assert torch.equal(shared.take(rows).mask, mask[:1])
    with pytest.raises(ValueError, match=r"mask=...\) must hold one row per sample \(5\) or a single one, got 6"):
        masked.check_rows(5)


def test_a_mask_holds_for_all_channels_at_once() -> None:
    x = images(4, shape=(3, 6, 6))
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., 2:4, 2:4] = True
    threat = Linf(eps=0.5, mask=mask)
    changed = threat.start(x, SampleRng.numbered(4)) != x
    assert changed.flatten(1).sum(1).tolist() == [12] * 4


@pytest.mark.parametrize("attack", [PGD(threat=Linf(eps=1)), RandomNoise(threat=Linf(eps=1), num_tries=3)])
def test_attacks_stay_inside_the_mask_and_turn_fewer(attack: Attack) -> None:
    net, x = small_net().eval(), images(24)
    y = own_labels(net, x)
    patch = replace(attack, threat=Linf(eps=1, mask=masks(24, share=0.1)))  # type: ignore[type-var]
    report = evaluate(net, x, y, {"all": attack, "patch": patch}, keep_adversarial=True, batch_size=7)
    assert report.success["patch"].any()
    assert report.success["patch"].sum() < report.success["all"].sum()
    assert not ((report.x_adv["patch"] != x) & ~masks(24, share=0.1)).any()


class FreePixels(nn.Module):
    """A net whose images are plain grey but for the pixels that it is given, `(N, P)`."""

    def __init__(self, net: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.net, self.places, self.shape = net, mask.flatten().nonzero()[:, 0], mask.shape[1:]

    def forward(self, pixels: Tensor) -> Tensor:
        grey = pixels.new_full((len(pixels), self.shape.numel()), 0.5)
        return self.net(grey.index_copy(1, self.places, pixels).unflatten(1, self.shape))


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(threat=L2(eps=0.2)),
        PGD(threat=L1(eps=0.8), num_steps=6, random_start=False),
        PGD(threat=L0(eps=1), num_steps=6, random_start=False),
        FAB(threat=Linf(eps=0.06), num_steps=6),
        FAB(threat=L2(eps=0.25), num_steps=6, num_targets=2),
        FAB(threat=L1(eps=0.8), num_steps=6),
        DeepFool(threat=Linf(eps=0.06)),
        DeepFool(threat=L2(eps=0.25)),
        CarliniWagner(threat=L2(eps=0.35), num_steps=50, num_rounds=4),
        EAD(threat=L1(eps=1.2), num_steps=50, num_rounds=6, first_weight=1e-2),
        L1Adam(threat=L2(eps=0.35), num_steps=20),
    ],
    ids=repr,
)
def test_an_attack_inside_a_mask_is_the_attack_on_fewer_pixels(attack: Attack) -> None:
    net, mask = small_net(dtype=torch.float64).eval(), masks(1, share=0.5)
    x = torch.where(mask, images(30, dtype=torch.float64), 0.5)
    y, fewer = own_labels(net, x), FreePixels(net, mask)
    inside = attack.inside(replace(attack.threat, mask=mask))(net, x, y)  # type: ignore[type-var]
    expected = attack(fewer, x[:, mask[0]], y)
    assert (fewer(expected).argmax(1) != y).any()
    assert torch.allclose(inside[:, mask[0]], expected, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_every_attack_keeps_to_one_mask_per_sample(attack: Attack) -> None:
    net, x, mask = small_net().eval(), images(12), masks(12)
    masked = attack.inside(replace(attack.threat, mask=mask))  # type: ignore[type-var]
    report = evaluate(net, x, own_labels(net, x), {"a": masked}, keep_adversarial=True, batch_size=5)
    changed = report.x_adv["a"] != x
    assert changed.any()
    assert not (changed & ~mask).any()


def test_the_judge_names_a_change_outside_the_mask() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Careless(Attack):
        threat: Threat

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
            return Linf(eps=0.1).start(x, rng)

    net, x = small_net().eval(), images(4)
    attack = Careless(threat=Linf(eps=0.1, mask=masks(1, share=0.25)))
    said = r"left its threat .*0\.\d+ of the pixels may change.*distance inf"
    with pytest.raises(ValueError, match=said):
        evaluate(net, x, own_labels(net, x), {"careless": attack})


def test_what_a_threat_prints_tells_masks_apart() -> None:
    one, other = Linf(eps=0.1, mask=masks(1)), Linf(eps=0.1, mask=masks(1).flip(-1).logical_or(masks(1)))
    assert repr(one) != repr(other)
    assert repr(Linf(eps=0.1)) == "Linf(eps=0.1)"


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 6, 6), torch.tensor([True]), [[True]]])
def test_a_mask_that_is_not_bool_with_a_row_per_sample_is_an_error(mask: object) -> None:
    with pytest.raises(ValueError, match=r"L2\(mask=...\) must be bool"):
        L2(eps=1, mask=mask)  # type: ignore[arg-type]


def test_a_mask_without_a_pixel_is_an_error() -> None:
    mask = masks(3)
    mask[1] = False
    with pytest.raises(ValueError, match=r"L1\(mask=...\) must leave at least one pixel to change, row 1 has none"):
        L1(eps=1, mask=mask)


@pytest.mark.parametrize("shape", [(6, 6), (1, 2, 6, 6), (1, 1, 6, 5), (1, 1, 1, 6, 6)])
def test_a_mask_of_another_shape_than_the_images_is_an_error(shape: tuple[int, ...]) -> None:
    net, x = small_net().eval(), images(4)
    attack = PGD(threat=Linf(eps=0.1, mask=torch.ones(shape, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"Linf\(mask=...\) must have the shape \(1 or 4, 1, 1 or 6, 1 or 6\)"):
        attack(net, x, own_labels(net, x))


def test_a_mask_of_height_and_width_alone_is_told_what_is_missing() -> None:
    mask, (net, x) = torch.zeros(6, 6, dtype=torch.bool), (small_net().eval(), images(4))
    mask[0, 0] = True
    with pytest.raises(ValueError, match=r"a mask \(H, W\) of images is `mask\[None, None\]`"):
        Linf(eps=0.1, mask=mask)
    with pytest.raises(ValueError, match=r"one mask for all samples is `mask\[None, None\]`"):
        PGD(threat=Linf(eps=0.1, mask=torch.ones(6, 6, dtype=torch.bool)))(net, x, own_labels(net, x))


def test_a_config_gives_a_mask_as_a_rectangle_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = torch.zeros(1, 1, 6, 8, dtype=torch.bool)
    expected[..., 1:3, 2:8] = True
    np.save("mask.npy", expected[0, 0].numpy())
    np.save("channels.npy", expected[0].expand(3, 6, 8).numpy().astype(np.uint8))
    Image.fromarray(expected[0, 0].numpy().astype(np.uint8) * 255).save("mask.png")
    for text in ("1:3, 2:8 of 6 x 8", "mask.npy", "mask.png"):
        assert torch.equal(Linf(eps=0.1, mask=text).mask, expected)  # type: ignore[arg-type]
    assert torch.equal(L2(eps=0.1, mask="channels.npy").mask, expected.expand(1, 3, 6, 8))  # type: ignore[arg-type]
    parser = ArgumentParser()
    parser.add_subclass_arguments(Threat, "threat")
    config = {"class_path": "touchstone.attacks.L1", "init_args": {"eps": 2, "mask": "mask.npy"}}
    built = parser.instantiate(parser.parse_object({"threat": config}))
    assert torch.equal(built.threat.mask, expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1:3, 2:9 of 6 x 8", "inside the image"),
        ("patch", "must be a tensor, a rectangle such as"),
        ("absent.npy", "there is no file 'absent.npy'"),
        ("grey.npy", r"must hold bool or 0 and 1, \(H, W\) or \(C, H, W\), got float64 \(6, 8\)"),
    ],
)
def test_a_mask_that_cannot_be_read_is_an_error(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("grey.npy", np.full((6, 8), 0.5))
    with pytest.raises(ValueError, match=said):
        Linf(eps=0.1, mask=given)


def test_a_mask_for_another_number_of_samples_is_an_error() -> None:
    net, x = small_net().eval(), images(4)
    with pytest.raises(ValueError, match=r"mask=...\) must hold one row per sample \(4\) or a single one, got 3"):
        PGD(threat=Linf(eps=0.1, mask=masks(3)))(net, x, own_labels(net, x))
