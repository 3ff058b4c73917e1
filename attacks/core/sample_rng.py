"""Noise that belongs to a sample: the same in any batch, order, process and on any device.

A counter-based generator: the n-th number of a sample is a hash of (seed, sample id, n), by the finalizer of
SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). It has no state,
so that drawing changes nothing, and it needs no generator per sample, so that it is one tensor operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# The constants of SplitMix64, as signed 64-bit integers: tensor products wrap around as the algorithm wants.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


_CACHED = 1 << 17
"""So many numbers are drawn at a time on a CPU: the words of more would not stay in its cache."""


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """The logical shift of a 64-bit word (`>>` on int64 copies the sign)."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)).mul_(_MIX_1)
    z = z.bitwise_xor_(_shift_right(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift_right(z, 31))


def _wrap(number: int) -> int:
    """Any integer, also one of numpy, as a signed 64-bit one."""
    return (int(number) + (1 << 63)) % (1 << 64) - (1 << 63)


@dataclass(frozen=True, eq=False)
class SampleRng:
    """A frozen (seed, sample ids) that yields noise per sample.

    Args:
        seed: any integer.
        sample_ids: int64 `(N,)`, one id per sample of the batch.
    """

    seed: int
    sample_ids: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", int(self.seed))  # of numpy's integers sums overflow

    @classmethod
    def numbered(cls, num_samples: int, seed: int = 0) -> SampleRng:
        """The generator of a batch whose samples are numbered from 0."""
        return cls(seed, torch.arange(num_samples))

    def fold(self, number: int) -> SampleRng:
        """An independent generator for the same samples, one for each number (a restart, a purpose)."""
        z = torch.tensor(_wrap(self.seed + 1)) * _GOLDEN_GAMMA + _wrap(number)
        return replace(self, seed=int(_mix(z)))

    def fold_each(self, numbers: Tensor) -> SampleRng:
        """As `fold`, with a number of its own for each sample, int64 `(N,)`; the sample ids are others after it."""
        ids = self.sample_ids.to(numbers.device)
        return replace(self, sample_ids=_mix(_mix(ids * _GOLDEN_GAMMA) + numbers))

    def on(self, device: torch.device) -> SampleRng:
        """The same generator with its ids on a device, which would be waited for wherever they are copied to it."""
        return replace(self, sample_ids=self.sample_ids.to(device))

    def take(self, rows: Tensor) -> SampleRng:
        """The same generator for some samples of the batch: bool `(N,)` or int64 `(M,)`."""
        return replace(self, sample_ids=self.sample_ids[rows.to(self.sample_ids.device)])

    def _words(self, num_per_sample: int, device: torch.device) -> Tensor:
        """64 random bits for each of the numbers 1..D of each sample: int64 `(N, D)`."""
        ids = self.sample_ids.to(device=device, dtype=torch.int64)
        seed = int(_mix(torch.tensor(_wrap(self.seed)) * _GOLDEN_GAMMA))
        key = _mix((ids + 1) * _GOLDEN_GAMMA + seed)
        counter = torch.arange(1, num_per_sample + 1, device=device) * _GOLDEN_GAMMA
        return _mix(key[:, None] + counter)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform noise in [0, 1), of the shape, dtype (float32 or float64) and device of `like`, `(N, ...)`."""
        if like.device.type == "cpu" and like.numel() > _CACHED and len(like) > 1:
            halves = zip(self.sample_ids.chunk(2), like.chunk(2), strict=True)
            return torch.cat([replace(self, sample_ids=ids).uniform(part) for ids, part in halves])
        bits = 53 if like.dtype == torch.float64 else 24  # what the mantissa holds exactly
        words = self._words(like[0].numel() if len(like) else 0, like.device)
        return _shift_right(words, 64 - bits).to(like.dtype).mul_(2.0**-bits).reshape(like.shape)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise, of the shape, dtype and device of `like`, by the inverse of the normal CDF."""
        smallest = 2.0**-54 if like.dtype == torch.float64 else 2.0**-25  # in place of 0, whose image is -inf
        return torch.special.ndtri(self.uniform(like).clamp_min_(smallest))

    def integers(self, high: int) -> Tensor:
        """One integer in [0, high) for each sample: int64 `(N,)`."""
        words = self._words(1, self.sample_ids.device)[:, 0]
        return _shift_right(words, 11) % high  # 53 bits: the bias of % is below high / 2**53


def read_rng(given: object, num_samples: int) -> SampleRng:
    """The noise of so many samples, as it was given; None numbers them, with seed 0.

    Raises:
        ValueError: it is no `SampleRng`, or one of another number of samples.
    """
    if given is None:
        return SampleRng.numbered(num_samples)
    if not isinstance(given, SampleRng):
        raise ValueError(
            f"rng must be SampleRng(seed, sample_ids), such as SampleRng.numbered({num_samples}, seed=0), or None, "
            f"got {given!r:.80}"
        )
    if len(given.sample_ids) != num_samples:
        raise ValueError(f"rng must have one id for each of {num_samples} samples, got {len(given.sample_ids)}")
    return given
