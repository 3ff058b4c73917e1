"""`low_frequency_share`: how much of a change's energy is in slow waves, which a picture is made of as well."""

from __future__ import annotations

import torch
from torch import Tensor


def low_frequency_share(change: Tensor, cutoff: float) -> Tensor:
    """The share of the energy at spatial frequencies up to the cut-off, the mean (frequency 0) included.

    By Parseval's theorem the squared amplitudes of the two-dimensional Fourier transform of a channel add up to the
    energy of its pixels, but for a constant; they are added over the channels.

    Args:
        change: float `(N, C, H, W)`.
        cutoff: the length of the frequency vector, in cycles a pixel; along an axis there is none above 0.5.

    Returns:
        float `(N,)` in [0, 1]; NaN where nothing changes, which has no share, infinite where a change is not finite.
    """
    largest = change.abs().flatten(1).amax(1)
    energy = torch.fft.fft2(change / largest[:, None, None, None]).abs().square().sum(1)
    low = _is_low(change.shape[2], change.shape[3], cutoff).to(change.device)
    share = (energy * low).flatten(1).sum(1) / energy.flatten(1).sum(1)
    return share.masked_fill(~largest.isfinite(), torch.inf)


def share_of_white_noise(height: int, width: int, cutoff: float) -> float:
    """The share that noise has on average whose pixels know nothing of one another."""
    return float(_is_low(height, width, cutoff).double().mean())


def _is_low(height: int, width: int, cutoff: float) -> Tensor:
    """Which of the frequencies of `fft2` are not above the cut-off, bool `(H, W)`."""
    # In float32, a frequency at the cut-off may lie above it; on the CPU, since not every accelerator has float64.
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") for n in (height, width))
    return torch.hypot(rows[:, None], columns) <= cutoff + 1e-9
