"""`Fourier`: pictures by their Fourier coefficients, in which natural pictures are uncorrelated.

Source: Olah, Mordvintsev and Schubert, "Feature visualization", Distill, 2017, section on preconditioning: the
gradient is climbed where frequencies and colours are scaled to equal energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The square root of the covariance of colours in ImageNet, as in lucid's `color_correlation_svd_sqrt`.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
DARKEST = 0.02  # of a given picture: black and white are infinitely far away


@dataclass(frozen=True)
class Fourier:
    """Coefficients of pictures of one size, real `(N, C, H, W // 2 + 1, 2)`."""

    size: tuple[int, int]

    def picture(self, coefficients: Tensor) -> Tensor:
        """Pixels in (0, 1), `(N, C, H, W)`."""
        spectrum = torch.view_as_complex(coefficients) * self._scale(coefficients)
        flat = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        if flat.shape[1] == 3:
            flat = torch.einsum("nchw,dc->ndhw", flat, self._colours(flat))
        return torch.sigmoid(flat)

    def coefficients(self, pictures: Tensor) -> Tensor:
        """The coefficients of pictures in [0, 1]; black and white come out as nearly so."""
        flat = torch.logit(pictures.clamp(DARKEST, 1 - DARKEST))
        if flat.shape[1] == 3:
            flat = torch.einsum("nchw,dc->ndhw", flat, torch.linalg.inv(self._colours(flat)))
        spectrum = torch.fft.rfft2(flat, norm="ortho") / self._scale(flat)
        return torch.view_as_real(spectrum).contiguous()

    def _scale(self, like: Tensor) -> Tensor:
        """One over the frequency, with a mean square of 1: the amplitudes of natural pictures."""
        height, width = self.size
        down = torch.fft.fftfreq(height, device=like.device, dtype=like.dtype)[:, None]
        across = torch.fft.rfftfreq(width, device=like.device, dtype=like.dtype)
        scale = 1 / (down.square() + across.square()).sqrt().clamp_min(1 / max(height, width))
        return scale / scale.square().mean().sqrt()

    @staticmethod
    def _colours(like: Tensor) -> Tensor:
        matrix = torch.tensor(COLOURS, dtype=like.dtype, device=like.device)
        return matrix / torch.linalg.vector_norm(matrix, dim=0).max()
