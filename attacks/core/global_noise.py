"""`noticing_global_noise`: warns where an attack draws from the global random state and not from its own noise."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .frozen_eval import is_training
from .logits import half_precision

_ASKED = weakref.WeakSet[type]()  # of these kinds of attacks it has been asked once whose draws they were


@contextmanager
def noticing_global_noise(kind: type, model: nn.Module, x: Tensor) -> Iterator[None]:
    """Warns, once for each kind of attack, where torch's random state is another after the block.

    Not where the model draws from it itself, or may, being in training mode.
    """
    before = _random_states(x.device)
    yield
    if kind in _ASKED or _are_equal(before, _random_states(x.device)):
        return
    if any(is_training(module) for module in model.modules()):  # layers that drop out draw
        return
    _ASKED.add(kind)
    before = _random_states(x.device)
    half = half_precision(model) if x.is_floating_point() else None
    with torch.no_grad():
        model.forward(x[:1].to(half or x.dtype))  # not `model(x)`: that is counted as the attack's, and casts the input
    if not _are_equal(before, _random_states(x.device)):
        return
    warnings.warn(
        f"{kind.__name__}.perturb draws from torch's global random state, so that its result for a sample depends on "
        "the others of the batch and on their order: draw from `rng`, as by `rng.uniform(x)` or `rng.normal(x)`",
        stacklevel=5,
    )


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.random.default_generator.get_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def _are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
