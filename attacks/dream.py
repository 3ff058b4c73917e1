"""`dream`: pictures that a layer, a channel or a unit of a net responds to most.

Source: Mordvintsev, Olah and Tyka, "Inceptionism: going deeper into neural networks", 2015; Erhan et al.,
"Visualizing higher-layer features of a deep network", 2009, section 3.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .core.buffers import buffers_kept
from .core.checks import check_device, computing_dtype, module_of, plain
from .core.frozen_eval import frozen_eval
from .core.sample_rng import SampleRng
from .dreaming.canvas import Canvas
from .dreaming.fourier import Fourier
from .dreaming.layers import responses_to, select
from .dreaming.octave_climb import OctaveClimb
from .dreaming.options import check_options
from .dreaming.stillness import why_still

NOISE = 0.3  # standard deviation of the coefficients of a decorrelated start: a soft grey


def dream(
    model: nn.Module,
    layer: str | Sequence[str],
    x: Tensor | Sequence[int],
    *,
    num_steps: int = 50,
    step_size: float = 0.02,
    objective: str = "l2",
    num_octaves: int = 1,
    octave_scale: float = 1.4,
    jitter: int = 0,
    smoothing: float = 0.0,
    variation_penalty: float = 0.0,
    decorrelated: bool = False,
    seed: int = 0,
    each: bool = False,
) -> Tensor:
    """Changes pictures by gradient ascent until a layer responds to them more; the model stays as it is.

    The forward stops at the layer. Each picture climbs for itself: alone or in any batch it becomes the same.

    Args:
        model: takes pixels in [0, 1], `(N, C, H, W)`, in any mode, on any device; gradients may be switched off.
        layer: a layer by its name in `model.named_modules()`, as `features.7`, or by the end of it, whose output begins
            with an axis of the pictures; with a colon one of its channels or units, as `layer3.1.conv2:64`, `fc:76` (a
            class's logit), `conv1:5,12,12` (a channel at a position); of tokens `(N, T, D)` a feature, or a feature of
            a token. An empty name is the model's output. Of several layers the sum is climbed, in one forward, or by
            `each` every one for itself.
        x: pictures to begin from, float `(N, C, H, W)` in [0, 1], or a shape, for noise: uniform, or if decorrelated
            with the spectrum of natural pictures.
        num_steps: steps for each octave, >= 1.
        step_size: the root mean square of a step's change, in pixels of [0, 1] (decorrelated: in coefficients), > 0.
        objective: `"l2"`, the length of the activations, or `"mean"`; of a single unit, as a class's logit, both are
            its value.
        num_octaves: sizes to dream at, >= 1, from coarse to fine, the last that of `x`.
        octave_scale: each octave's size over that of the one before, > 1.
        jitter: most pixels by which the picture is shifted at each step, >= 0.
        smoothing: standard deviation in pixels of the Gaussian that smooths each gradient, >= 0; not decorrelated.
        variation_penalty: the price of the total variation, in units of the objective, >= 0.
        decorrelated: whether Fourier coefficients of equal energy and decorrelated colours are climbed, not pixels.
        seed: of the noise and of the shifts.
        each: whether every layer gets pictures of its own, all from the same beginnings: those that it would get
            alone, for the price of a larger batch up to the last of the layers.

    Returns:
        The pictures, in [0, 1], a new tensor on the model's device; by `each` N for every layer, in their order.

    Warns:
        UserWarning: pictures stay as they began, since no gradient comes from the layer, it leads out of [0, 1], the
            steps are too small, or the response is not finite.

    Raises:
        ValueError: there is no such layer (the message lists those that there are, the nearest first), channel or
            unit, its output does not begin with an axis of the pictures, a layer is given twice and not by `each`, an
            option is of another type or outside its range, or the model does not take the size of an octave.

    Example:
        >>> pictures = dream(model, layer="features.7", x=(4, 3, 224, 224), jitter=8)
    """
    options: dict[str, Any] = {
        "num_steps": num_steps,
        "step_size": step_size,
        "num_octaves": num_octaves,
        "octave_scale": octave_scale,
        "jitter": jitter,
        "smoothing": smoothing,
        "variation_penalty": variation_penalty,
        "decorrelated": decorrelated,
        "seed": seed,
    }
    check_options({**options, "objective": objective})
    model = module_of(model)
    layers = [layer] if isinstance(layer, str) or not isinstance(layer, Iterable) else list(layer)
    if not each:
        _check_different(model, layers)
    with buffers_kept(model), frozen_eval(model), responses_to(model, layers, objective) as responses:
        begin = start_of(model, x, seed=seed, decorrelated=decorrelated)
        number = None
        if each:
            places = {name: place for place, name in enumerate(dict.fromkeys(layers))}
            number = torch.tensor([places[name] for name in layers for _ in begin], device=begin.device)
            begin = begin.repeat(len(layers), 1, 1, 1)
        climb = OctaveClimb(model=model, responses=responses, **options)
        pictures, has_moved = climb(begin, number)
        still = ~has_moved
        if bool(still.any()):
            slope = climb.slope(begin[still], None if number is None else number[still])
            reasons = why_still(*slope, begin[still], climb.canvas)
            warnings.warn(
                f"dream(layer={layer!r}): {int(still.sum())} of {len(begin)} pictures stay as they began; {reasons}",
                stacklevel=2,
            )
    return pictures


def _check_different(model: nn.Module, layers: Sequence[str]) -> None:
    """Raises ValueError where a layer is given twice, perhaps by its name and by the end of it."""
    given: dict[tuple[str, tuple[int, ...]], str] = {}
    for layer in layers:
        chosen = select(model, layer)
        same = given.get((chosen.name, chosen.index))
        if same is not None:
            twice = f"{layer!r} twice" if same == layer else f"{same!r} and {layer!r}, which are one"
            raise ValueError(f"dream(layer=...) must be different layers, whose sum is climbed, got {twice}")
        given[chosen.name, chosen.index] = layer


def start_of(model: nn.Module, x: Tensor | Sequence[int], *, seed: int = 0, decorrelated: bool = False) -> Tensor:
    """The pictures that `dream` begins from, on the model's device.

    Args:
        model: says the device and the precision.
        x: pictures, or a shape for noise; the same noise for a picture in any batch.
        seed: of the noise.
        decorrelated: whether the noise has the spectrum of natural pictures; else it is uniform.

    Raises:
        ValueError: the pictures are not `(N, C, H, W)` in [0, 1].
    """
    dtype = computing_dtype(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    shape = tuple(x.shape) if isinstance(x, Tensor) else tuple(x)
    if len(shape) != 4 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise ValueError(f"dream(x=...) must be pictures `(N, C, H, W)` or such a shape, got {shape}")
    if isinstance(x, Tensor):
        check_device(model, x)
        try:
            Canvas().check_input(x)
        except ValueError as error:
            raise ValueError(f"dream(x=...): {error}") from None
        return plain(x).to(dtype).clone()
    like, rng = torch.empty(shape, dtype=dtype, device=device), SampleRng.numbered(shape[0], seed)
    if not decorrelated:
        return rng.uniform(like)
    fourier = Fourier((shape[2], shape[3]))
    return fourier.picture(NOISE * rng.normal(fourier.coefficients(like.zero_())))
