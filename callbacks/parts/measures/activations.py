"""Which layers of a net do nothing: units that are always 0, values at the bounds of their function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..passes.axis_of_layer import AxisOfLayer
from .verdicts import idle_layer

# What is watched: functions by their lowest and highest value, and those whose units may be dead.
_BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
}
_MAY_DIE: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6)
_WATCHED = (*_MAY_DIE, *_BOUNDS)


class Activations:
    """Watches the layers of activations of a model during the next of its forwards.

    Those that are modules: a function called in `forward`, such as `F.relu`, cannot be seen. Of a module that is called
    several times in that forward the worst call counts; later forwards, such as those of an attack, do not. A unit of a
    convolution is a channel, of all else an entry of the last axis. A model on which `torch.compile` has worked before
    may show none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._shares: dict[str, tuple[str, Tensor]] = {}
        self._done: set[str] = set()
        self._depth = 0
        watched = {name: module for name, module in model.named_modules() if isinstance(module, _WATCHED)}
        self._axis_of_layer = AxisOfLayer(model)
        self._hooks = [module.register_forward_hook(self._watch(name)) for name, module in watched.items()]
        for outer in (model, *model.children()):  # a step of training may call either
            self._hooks.append(outer.register_forward_pre_hook(self._enter))
            self._hooks.append(outer.register_forward_hook(self._leave, always_call=True))

    @property
    def has_seen(self) -> bool:
        """Whether any layer has been seen so far."""
        return bool(self._shares)

    def _enter(self, *_: Any) -> None:
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._done |= self._shares.keys()

    def _watch(self, name: str) -> Any:
        @torch.no_grad()
        def see(module: nn.Module, _: Any, values: Tensor) -> None:
            if name in self._done or not values.numel() or values.ndim < 2:
                return
            if isinstance(module, _MAY_DIE):
                by_unit = values.movedim(self._axis_of_layer(values), 0).flatten(1)
                self._take(name, "dead", (by_unit.amax(1) <= 0).float().mean())
                return
            low, high = next(bounds for kind, bounds in _BOUNDS.items() if isinstance(module, kind))
            margin = 0.01 * (high - low)
            at_bounds = (values < low + margin) | (values > high - margin)
            self._take(name, "saturated", at_bounds.float().mean())

        return see

    def _take(self, name: str, kind: str, share: Tensor) -> None:
        before = self._shares[name][1] if name in self._shares else share
        self._shares[name] = kind, torch.maximum(before, share)

    def verdicts(self) -> dict[str, str]:
        """Stops watching, and says of which layers something is wrong, and what."""
        self._axis_of_layer.let_go()
        for hook in self._hooks:
            hook.remove()
        found = {name: idle_layer(name, kind, float(share)) for name, (kind, share) in self._shares.items()}
        return {name: sentence for name, sentence in found.items() if sentence is not None}
