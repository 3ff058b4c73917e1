"""`NormalizedBatches`: the pixels of batches that come normalized, and a model that takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from touchstone.nets import Normalize

from .on_device import on_device

NUM_TOLD_BY = 8  # images without a dark pixel tell pixels from normalized batches; one alone may be a bright picture


class _OfBatches(nn.Module):
    """A normalization of batches `(N, C, ...)` of any shape; each of the D numbers of `(N, D)` is a channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_channels, self.black_is_below_0 = len(mean), max(mean) > 0
        self.of_images = Normalize(mean, std)

    def forward(self, x: Tensor) -> Tensor:
        return self.of_images(_as_images(x)).reshape(x.shape)

    def undo(self, normalized: Tensor) -> Tensor:
        """The pixels that `forward` would turn into `normalized`."""
        return self.of_images.undo(_as_images(normalized)).reshape(normalized.shape)


def _as_images(x: Tensor) -> Tensor:
    """What each channel of `(N, C, ...)` holds, as an image of it: `(N, C, H, W)`."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], math.prod(x.shape[2:]), 1)


class NormalizedBatches:
    """Undoes a normalization of batches, and looks whether they were normalized by it.

    Args:
        normalization: mean and standard deviation per channel; None where batches are pixels already.
        asked_by: the class whose option it is, for messages.

    Attributes:
        normalization: the same in numbers, or None.
        normalize: the same as a layer, or None.

    Raises:
        ValueError: it is no mean and standard deviation.
    """

    def __init__(self, normalization: Sequence[Sequence[float]] | None, asked_by: str) -> None:
        self._option = f"{asked_by}(normalization=...)"
        self.normalization = None if normalization is None else self._read(normalization)
        self.normalize = None if self.normalization is None else _OfBatches(*self.normalization)
        self.begin()

    def _read(self, given: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        try:
            mean, std = (tuple(float(value) for value in part) for part in given)
        except (TypeError, ValueError):
            mean = std = ()
        if not mean or len(mean) != len(std) or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError(
                f"{self._option} must be mean and std, each with one number per channel, as in ([0.1307], [0.3081]), "
                f"std > 0, got {given!r}"
            )
        return mean, std

    def begin(self) -> None:
        """Another data loader, of which nothing is known."""
        self._num_seen, self._were_beyond_pixels = 0, False

    def of_pixels(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The model from pixels, for one that takes the batches."""
        return module if self.normalize is None else nn.Sequential(on_device(self.normalize, device), module)

    def pixels(self, x: Tensor) -> Tensor:
        """The next batch of the loader as it was before it was normalized, in [0, 1].

        Raises:
            ValueError: it has not been normalized, or by other numbers, or it has another number of channels.
        """
        if self.normalize is None:
            return x
        num_channels = self.normalize.num_channels
        if num_channels > 1 and x.shape[1:2] != (num_channels,):  # grey would become colours by broadcasting
            raise ValueError(
                f"{self._option} has numbers for {num_channels} channels, and the samples {tuple(x.shape)} have "
                f"{x.shape[1] if x.ndim > 1 else 'none'} along their second axis: give a mean and a std for each "
                "channel, or one of each for all"
            )
        self._num_seen += len(x)
        self._were_beyond_pixels |= bool(x.numel()) and (float(x.min()) < 0 or float(x.max()) > 1)
        if self.normalize.black_is_below_0 and not self._were_beyond_pixels and self._num_seen >= NUM_TOLD_BY:
            raise ValueError(
                f"{self._option}: the batches lie in [0, 1] and hold no value below 0, so that they are "
                "pixels already; leave the option out"
            )
        pixels = on_device(self.normalize, x.device).undo(x)
        rounded = pixels.clamp(0, 1)
        rounding_error = 1e-3 if x.element_size() > 2 else 0.02
        if not bool(((pixels - rounded).abs() < rounding_error).all()):
            raise ValueError(
                f"{self._option} must be the mean and standard deviation that the batches were normalized "
                f"with, so that undoing it gives pixels in [0, 1]; got {self.normalization}, and values from "
                f"{float(pixels.min()):.3g} to {float(pixels.max()):.3g}"
            )
        return rounded
