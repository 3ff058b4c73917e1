"""`watched_units`: what the tanh, sigmoid and relu units of a model give while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from touchstone.nets.graph import GraphNet
from touchstone.nets.parts.gates import Gates
from touchstone.nets.recurrent import Recurrent
from touchstone.nets.transformer import FeedForward

from .axis_of_layer import AxisOfLayer
from .real_steps import RealSteps

KINDS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.ReLU: "relu"}
_OF_GRAPHS: dict[Callable[..., Tensor], str] = {torch.tanh: "tanh", torch.relu: "relu"}
Keep = Callable[[str, str, Tensor], None]


@contextmanager
def watched_units(model: nn.Module, keep: Keep) -> Iterator[None]:
    """Inside, a forward of the model hands what its units give to `keep`.

    That is the layer's name, the kind of its units, `"tanh"`, `"sigmoid"` or `"relu"`, and what they gave, a column for
    each unit, `(M, U)`; nothing of padding. A unit of a convolution is a channel, of all else an entry of the last
    axis; one that is a module of its own is what the layer before it is.
    """
    real, axis_of_layer = RealSteps(model), AxisOfLayer(model)

    def give(name: str, kind: str, values: Tensor, axis: int = -1) -> None:
        values = values[:, None] if values.ndim == 1 else values.movedim(axis, -1)
        mask = real.of(values) if values.ndim == 3 else None
        keep(name, kind, values.flatten(0, -2) if mask is None else values[mask])

    def of_module(name: str, kind: str) -> Callable[..., None]:
        return lambda module, args, output: give(name, kind, output, axis_of_layer(output))

    def of_feed_forward(name: str) -> Callable[..., None]:
        return lambda module, args: give(name, "relu", args[0], 1 if isinstance(module, nn.Conv1d) else -1)

    def of_recurrent(name: str) -> Callable[..., None]:
        return lambda unit, kind, values: give(f"{name}.{unit}", kind, values)

    def of_graph(name: str) -> Callable[..., None]:
        def look(net: GraphNet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read = net.adjacency.any(0)
            read[: net.num_inputs] = False
            if bool(read.any()):
                sums = net.sums(*args, **kwargs)
                give(name, _OF_GRAPHS[net.rho], net.rho(sums[:, read]))

        return look

    handles: list[Any] = []
    for name, module in model.named_modules():
        if not _gives_units(module):
            continue
        if type(module) in KINDS:
            handles.append(module.register_forward_hook(of_module(name, KINDS[type(module)])))
        elif isinstance(module, FeedForward):
            handles.append(module.second.register_forward_pre_hook(of_feed_forward(name)))
        elif isinstance(module, Recurrent):
            handles.append(Gates(module, of_recurrent(name)))
        elif isinstance(module, GraphNet):
            handles.append(module.register_forward_pre_hook(of_graph(name), with_kwargs=True))
    try:
        yield
    finally:
        real.let_go()
        axis_of_layer.let_go()
        for handle in handles:
            handle.remove()


def has_units(model: nn.Module) -> bool:
    """Whether the model has any units that `watched_units` could hand out."""
    return any(map(_gives_units, model.modules()))


def _gives_units(module: nn.Module) -> bool:
    if isinstance(module, FeedForward):
        return module.activation == "relu"
    if isinstance(module, GraphNet):
        return module.rho in _OF_GRAPHS
    return type(module) in KINDS or isinstance(module, Recurrent)
