"""Noise per sample: its distribution, and that it depends on nothing but seed and id."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from touchstone.attacks import SampleRng

LIKE = torch.empty(200, 3, 20)


def splitmix64(state: int) -> int:
    """The published algorithm, with Python's integers."""
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_words_are_those_of_splitmix64() -> None:
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    words = SampleRng(5, torch.tensor([7]))._words(4, torch.device("cpu"))[0].tolist()
    key = splitmix64(splitmix64(5 * golden) + 8 * golden)
    assert [word & mask for word in words] == [splitmix64(key + n * golden) for n in (1, 2, 3, 4)]


def test_noise_belongs_to_the_sample_and_not_to_its_place() -> None:
    ids = torch.tensor([9, 2, 5])
    whole = SampleRng(1, ids).uniform(LIKE[:3])
    assert torch.equal(SampleRng(1, ids[[2]]).uniform(LIKE[:1])[0], whole[2])
    assert torch.equal(SampleRng(1, ids).take(torch.tensor([2, 0])).uniform(LIKE[:2]), whole[[2, 0]])


def test_seeds_ids_and_folds_give_independent_noise() -> None:
    rng = SampleRng.numbered(200)
    streams = [rng, SampleRng.numbered(200, seed=1), rng.fold(0), rng.fold(1), rng.fold(1).fold(1)]
    noise = np.array([stream.uniform(LIKE).flatten().numpy() for stream in streams])
    correlation = np.corrcoef(noise) - np.eye(len(streams))
    assert np.abs(correlation).max() < 0.04
    assert np.abs(np.corrcoef(rng.uniform(LIKE).flatten(1).numpy()) - np.eye(200)).max() < 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_and_normal_noise_have_their_distributions(dtype: torch.dtype) -> None:
    like, rng = LIKE.to(dtype), SampleRng.numbered(200, seed=3)
    uniform, normal = rng.uniform(like).flatten().numpy(), rng.normal(like).flatten().numpy()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert stats.kstest(normal, "norm").pvalue > 0.001
    assert np.isfinite(normal).all()


def test_integers_are_uniform() -> None:
    counts = torch.bincount(SampleRng.numbered(9000).integers(9), minlength=9).numpy()
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**70, -(2**64), np.int64(3), np.int32(-1), np.uint8(255)])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert SampleRng.numbered(2, seed=seed).fold(seed).uniform(LIKE[:2]).isfinite().all()


def test_drawing_changes_no_random_state() -> None:
    before = torch.get_rng_state()
    SampleRng.numbered(200).normal(LIKE)
    assert torch.equal(before, torch.get_rng_state())


def test_a_number_of_its_own_gives_each_sample_noise_of_its_own() -> None:
    rng, like = SampleRng.numbered(200), LIKE
    numbers = torch.arange(200) % 3
    folded = rng.fold_each(numbers).uniform(like)
    assert torch.equal(folded[5:9], rng.take(torch.arange(5, 9)).fold_each(numbers[5:9]).uniform(like[5:9]))
    others = rng.fold_each(numbers + 1).uniform(like)
    assert stats.kstest(folded.flatten().numpy(), "uniform").pvalue > 1e-3
    for noise in (others, rng.uniform(like)):
        assert abs(float(torch.corrcoef(torch.stack([folded.flatten(), noise.flatten()]))[0, 1])) < 0.04
    assert len(torch.unique(rng.fold_each(numbers)._words(1, torch.device("cpu")))) == 200
