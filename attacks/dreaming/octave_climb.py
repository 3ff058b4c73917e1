"""`OctaveClimb`: gradient ascent of a net's response, from coarse to fine, each picture for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from itertools import repeat

import torch
from torch import Tensor, nn

from ..core.ascend import Measure, ascend, gradient_of
from .canvas import Canvas
from .fourier import Fourier
from .jitter import jittered
from .octaves import octave_is_named, octave_sizes, resized
from .total_variation import total_variation

# Of a CPU: with one thread two pictures cost AlexNet and ResNet-18 less each than one or four, VGG-11 more than one.
PIXELS_AT_ONCE = 2 * 224 * 224


@dataclass(frozen=True, kw_only=True)
class OctaveClimb:
    """Climbs as `dream` says, whose options these are.

    Attributes:
        model: for messages.
        responses: pictures `(N, C, H, W)` to the responses of the layers, `(N,)` each, by their names.
    """

    model: nn.Module
    responses: Callable[[Tensor], dict[str, Tensor]]
    num_steps: int
    step_size: float
    num_octaves: int
    octave_scale: float
    jitter: int
    smoothing: float
    variation_penalty: float
    decorrelated: bool
    seed: int

    def __call__(self, begin: Tensor, layer: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pictures that the climb ends at, `(N, C, H, W)`, and which of them have moved, bool `(N,)`.

        Args:
            begin: the pictures, `(N, C, H, W)`.
            layer: the number of the layer whose response each one climbs, int64 `(N,)`; None for the sum of all.
        """
        pictures, has_moved = zip(*(self._climb(*part) for part in _parts(begin, layer)), strict=True)
        return torch.cat(pictures), torch.cat(has_moved)

    def slope(self, pictures: Tensor, layer: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gain of pictures as they are, float `(N,)`, and its gradient, `(N, C, H, W)`."""
        found = []
        for part, number in _parts(pictures, layer):
            points = part.detach().clone().requires_grad_()
            gain = self.gain(points, number)
            found.append((gain.detach(), gradient_of(gain, points)))
        gains, gradients = zip(*found, strict=True)
        return torch.cat(gains), torch.cat(gradients)

    @property
    def canvas(self) -> Canvas:
        """Where the points may go, pixels or coefficients, and along what."""
        return Canvas(box=None) if self.decorrelated else Canvas(smoothing=self.smoothing)

    def gain(self, pictures: Tensor, layer: Tensor | None) -> Tensor:
        """What is climbed of pictures as they are, float `(N,)`: the sum of the layers' responses, or that of one."""
        responses = self.responses(pictures).values()
        return reduce(torch.add, responses) if layer is None else torch.stack([*responses]).gather(0, layer[None])[0]

    def _climb(self, begin: Tensor, layer: Tensor | None) -> tuple[Tensor, Tensor]:
        detail = torch.zeros_like(begin)  # what the coarser octaves have changed
        has_moved = torch.zeros(len(begin), dtype=torch.bool, device=begin.device)
        sizes = octave_sizes((begin.shape[2], begin.shape[3]), self.num_octaves, self.octave_scale)
        for octave, size in enumerate(sizes):
            fourier = Fourier(size)
            shown = fourier.picture if self.decorrelated else _as_it_is
            base = resized(begin, size)
            points = (base + resized(detail, size)).clamp(0, 1)
            points = fourier.coefficients(points) if self.decorrelated else points
            with octave_is_named(self.model, size) if size != begin.shape[2:] else nullcontext():
                climbed, _ = ascend(
                    self._measure(shown, octave, layer),
                    points,
                    start=points,
                    threat=self.canvas,
                    num_steps=self.num_steps,
                    step_size=lambda step, threat: self.step_size,
                    early_stop=False,
                )
            has_moved |= (climbed != points).flatten(1).any(1)
            detail = shown(climbed) - base
        return (base + detail).clamp(0, 1).detach(), has_moved

    def _measure(self, shown: Callable[[Tensor], Tensor], octave: int, layer: Tensor | None) -> Measure:
        """The gain of points whose pictures are `shown`, none of which is ever done."""
        num_measured = octave * self.num_steps

        def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal num_measured
            num_measured += 1
            pictures = shown(points)
            moved = jittered(pictures, self.jitter, seed=self.seed, step=num_measured) if self.jitter else pictures
            gain = self.gain(moved, layer)
            if self.variation_penalty:
                gain = gain - self.variation_penalty * total_variation(pictures)
            return gain, rows < 0

        return measure


def _parts(pictures: Tensor, layer: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """As many pictures as go through the net at once, with the numbers of their layers."""
    pixels = pictures.shape[2] * pictures.shape[3]
    num_at_once = max(1, PIXELS_AT_ONCE // pixels) if pictures.device.type == "cpu" else len(pictures)
    layers = repeat(None) if layer is None else layer.split(num_at_once)
    return zip(pictures.split(num_at_once), layers, strict=False)


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures
