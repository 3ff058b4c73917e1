"""`receptive_fields`: what each layer of a net sees of its input.

Sizes follow floor((M + 2p - k) / s + 1); fields, strides and positions as in Araujo, Norris and Sim, "Computing
receptive fields of convolutional neural networks", Distill, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils.hooks import RemovableHandle

from . import handmade
from .parts.circular import CircularPadding
from .parts.dependence import Dependence, NoRuleError, Seen
from .parts.evaluating import evaluating
from .parts.rules import RULES, WINDOWED


@dataclass(frozen=True)
class LayerSight:
    """What one layer sees of the input; every tuple has one entry per axis, height before width.

    Attributes:
        name: as in `net.named_modules()`; for a function called in a forward, the module's name and the function's.
        kind: the class of the layer, or the function's name.
        output_size: units along each axis; empty for a layer without axes of the input, as a `Linear` on all of it.
        receptive_field: positions that a unit sees of an input without borders, where it sees most.
        effective_stride: positions of the input from one unit to the next; below 1 after upsampling.
        centre_sees: first and last position, counted from 1, that the centre unit depends on; the centre of n units
            is the floor(n / 2)-th, counted from 1. None where it depends on none. A layer without axes is one unit.
    """

    name: str
    kind: str
    output_size: tuple[int, ...]
    receptive_field: tuple[int, ...]
    effective_stride: tuple[float, ...]
    centre_sees: tuple[tuple[int, int] | None, ...]


def receptive_fields(net: nn.Module, input_size: int | Sequence[int] = 224) -> list[LayerSight]:
    """What each layer sees, in the order of the forward pass; branches that meet take the union.

    Nothing is computed: the net's operations are followed by their shapes, whatever the size, without changing the
    net. Units are counted with those that see only padding. Attention and normalisation over positions see all. Where
    an operation takes positions apart or puts others beside them, as a token for the class or windows of attention,
    there are no axes any more: from there on a layer counts as one unit.

    Args:
        net: takes one batch, `(N, C, L)`, `(N, C, H, W)` or `(N, C, D, H, W)`; of a `DataParallel`, its module.
        input_size: `(C, H, W)`, `(H, W)`, or one number for all axes; the channels and the number of axes are those of
            the first convolution where they are not given.

    Returns:
        A record for each layer, that is each module without children that puts out a tensor of the input, attention,
        and each convolution, pooling or upsampling that a forward calls as a function; a layer called twice has two.

    Raises:
        ValueError: the input does not fit the net, or the net cannot be traced, as where its path depends on values
            or an operation moves positions in a way that has no rule; the message names the layer.

    Example:
        >>> print(table(receptive_fields(torchvision.models.alexnet(), 227)))
    """
    if isinstance(net, nn.DataParallel):  # which torch cannot call with other weights
        net = net.module
    shape = _input_shape(net, input_size)
    is_whole = isinstance(input_size, Sequence) and len(input_size) == len(shape) - 1
    walk = _Walk(net)
    with evaluating(net), torch.inference_mode(False), torch.no_grad():
        try:
            walk.go(shape)
        except Exception as error:  # whatever a net does that cannot be followed
            has_no_rule = isinstance(error, NoRuleError)
            reason = f"{error}" if has_no_rule else f"{type(error).__name__}: {error}"
            is_guess = not is_whole and not has_no_rule
            advice = "; the size may be given with the channels first, as (C, H, W)" if is_guess else ""
            raise ValueError(
                f"receptive_fields cannot follow {type(net).__name__} with an input {tuple(shape)} at {walk.where}: "
                f"{reason.splitlines()[0]}{advice}"
            ) from error
    return walk.found


class _Walk:
    """A forward pass of shapes alone, and what each layer on its way sees.

    Attributes:
        found: the records so far.
    """

    def __init__(self, net: nn.Module) -> None:
        self.found: list[LayerSight] = []
        self._net, self._path = net, ["the net"]
        self._names = {module: name or "the net" for name, module in net.named_modules()}
        self._modules = {name: module for module, name in self._names.items()}
        self._dependence = Dependence(RULES, self._see_function)

    @property
    def where(self) -> str:
        """The module that is at work."""
        return self._path[-1]

    def go(self, shape: Sequence[int]) -> None:
        """Walks with a batch of this shape."""
        net, handles = self._net, list[RemovableHandle]()
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        try:
            for module, name in self._names.items():
                if isinstance(module, torch.jit.ScriptModule):
                    self._path.append(name)
                    raise NoRuleError("what TorchScript has compiled cannot be followed")
                handles += [
                    module.register_forward_pre_hook(self._enter),
                    module.register_forward_hook(self._leave),
                ]
            weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
            dtype = next((w.dtype for w in weights.values() if w.is_floating_point()), torch.float32)
            x = torch.empty(shape, device="meta", dtype=dtype)
            self._dependence.set(x, Seen.of_input(shape))
            with self._dependence, CircularPadding(self._dependence):
                torch.func.functional_call(net, weights, (x,))
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: object) -> None:
        self._path.append(self._names[module])

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self._path.pop()
        first = output[0] if isinstance(output, tuple) and output else output  # of attention and recurrent layers
        seen = self._dependence.see(first)
        is_layer = not _has_children(module) and not isinstance(module, nn.Sequential)
        if seen is not None and (is_layer or isinstance(module, nn.MultiheadAttention)):
            self.found.append(_record(self._names[module], type_before_parametrizations(module).__name__, seen))

    def _see_function(self, name: str, output: Tensor) -> None:
        module = self._modules[self.where]
        if name in WINDOWED and _has_children(module):
            kind = name.removeprefix("_").removesuffix("_with_indices")
            prefix = "" if module is self._net else f"{self.where}."
            self.found.append(_record(f"{prefix}{kind}", kind, self._dependence.see(output)))


def table(records: Sequence[LayerSight]) -> str:
    """The records as a table, a line for each layer; equal numbers on all axes are written once."""
    rows: list[tuple[str, ...]] = [("layer", "kind", "size", "sees", "stride", "centre sees")]
    for record in records:
        intervals = ["nothing" if seen is None else f"{seen[0]}-{seen[1]}" for seen in record.centre_sees]
        columns = (record.output_size, record.receptive_field, record.effective_stride, intervals)
        rows.append((record.name, record.kind, *map(_on_all_axes, columns)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _on_all_axes(values: Sequence[object]) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts) or "-"


def _record(name: str, kind: str, seen: Seen | None) -> LayerSight:
    assert seen is not None
    inside = [sight.inside[max(1, len(sight) // 2) - 1] for sight in seen.sights]
    sees_nothing = any(first > last for first, last in inside)  # a hole of a transposed convolution, or only padding
    return LayerSight(
        name=name,
        kind=kind,
        output_size=tuple(len(seen.sights[axis]) for axis in seen.axes),
        receptive_field=tuple(sight.width for sight in seen.sights),
        effective_stride=tuple(sight.stride for sight in seen.sights),
        centre_sees=tuple(None if sees_nothing else (int(first) + 1, int(last) + 1) for first, last in inside),
    )


def _input_shape(net: nn.Module, input_size: int | Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch of one; what is not given is that of the first convolution."""
    sizes = (input_size,) if isinstance(input_size, int) else tuple(input_size)
    convolutions = [module for module in net.modules() if isinstance(module, (_ConvNd, handmade.Conv1d))]
    axes = [len(module.kernel_size) if isinstance(module, _ConvNd) else 1 for module in convolutions]
    num_axes = axes[0] if axes else len(sizes) - 1 if len(sizes) > 1 else 2
    lengths = {1, num_axes, *(number + 1 for number in axes or [num_axes])}
    if len(sizes) not in lengths or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            f"receptive_fields(input_size=...) must be one number >= 1, {num_axes} for the axes of the input, or "
            f"{num_axes + 1} with the channels first, got {input_size}"
        )
    if len(sizes) not in (1, num_axes):
        return (1, *sizes)
    if not convolutions:
        raise ValueError(
            "receptive_fields(input_size=...) must begin with the channels, since the net has no convolution that "
            f"tells them, got {input_size}"
        )
    return (1, int(convolutions[0].in_channels), *(sizes * num_axes if len(sizes) == 1 else sizes))


def _has_children(module: nn.Module) -> bool:
    """What a parametrization computes a layer's weights with, as `weight_norm` does, is no part of a forward."""
    return any(name != "parametrizations" for name, _ in module.named_children())
