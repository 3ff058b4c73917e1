"""Layers, channels and units by name, and a forward that stops at the last one wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core.logits import logits_as_float

NUM_NAMED = 30  # layers that a message names


@dataclass(frozen=True)
class Selection:
    """A layer's output, or a part of it.

    Attributes:
        text: as the user wrote it.
        name: of the module, as in `model.named_modules()`; empty for the model itself.
        index: the channel, or the channel and a position, `(c, row, column)`, of tokens `(c, t)`; empty for all of it.
    """

    text: str
    name: str
    index: tuple[int, ...]

    def of(self, output: Tensor) -> Tensor:
        """The part of a batch of outputs, `(N, ...)`, one row per sample.

        Raises:
            ValueError: there is no such channel or position.
        """
        by_channel = channels_first(output)
        for axis, number in enumerate(self.index, start=1):
            if axis >= output.ndim or not 0 <= number < by_channel.shape[axis]:
                wanted = ", ".join(map(str, self.index))
                raise ValueError(
                    f"dream(layer={self.text!r}): the output of {self.name!r} for one sample has the shape "
                    f"{tuple(by_channel.shape[1:])}, channels first, so that there is no {wanted}"
                )
        chosen: Any = (slice(None), *self.index)
        return (by_channel[chosen] if self.index else output).reshape(len(output), -1)


def channels_first(output: Tensor) -> Tensor:
    """A layer's output with its channels at axis 1: tokens `(N, T, D)` have theirs at the end, all else at axis 1.

    Three axes are taken for tokens; those of a one-dimensional convolution cannot be told from them, nor pictures with
    channels last, `(N, H, W, C)`, from others: there axis 1 is the row.
    """
    return output.movedim(2, 1) if output.ndim == 3 else output


def select(model: nn.Module, layer: str, *, option: str = "dream(layer=...)") -> Selection:
    """A selection by its name: `features.7`, channel `layer3.1.conv2:64`, unit `fc:76` or `layer1.0.conv1:5,12,12`.

    The end of a name will do where it is that of one layer only, as `fc` for `module.fc`.

    Args:
        model: it is looked for in there.
        layer: the name.
        option: what it was given as, for messages, as `dream(layer=...)`.

    Raises:
        ValueError: it is no name, there is no such layer (the message lists those that there are, the nearest first),
            or it is in a program of TorchScript.
    """
    if not isinstance(layer, str):
        raise ValueError(f"{option} must be a layer by its name, such as 'features.7', got {layer!r:.80}")
    asked, (name, colon, numbers) = option.replace("...", repr(layer)), layer.partition(":")
    names = [known for known, _ in model.named_modules()]
    ends = [known for known in names if known.endswith(f".{name}")]
    if name not in names and len(ends) == 1:
        name = ends[0]
    if name not in names:
        names = sorted(_layers(model), key=lambda known: -SequenceMatcher(None, name, known).ratio())
        more = f", and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        raise ValueError(f"{asked} must be a layer of {type(model).__name__}: {', '.join(names[:NUM_NAMED])}{more}")
    if _is_compiled(model, name):
        raise ValueError(
            f"{asked} must be a layer that runs in Python, and this one is of TorchScript, which shows no "
            "layer's output: take the net that was compiled"
        )
    try:
        index = tuple(int(number) for number in numbers.split(",")) if colon else ()
    except ValueError:
        raise ValueError(
            f"{asked} must end in numbers after the colon, as fc:76 for a unit or conv:5,12,12 for a "
            f"channel at a position, got {numbers!r}"
        ) from None
    return Selection(layer, name, index)


def _is_compiled(model: nn.Module, name: str) -> bool:
    path = name.split(".") if name else []
    around = (model.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1))
    return any(isinstance(module, torch.jit.ScriptModule) for module in around)


def _layers(model: nn.Module) -> list[str]:
    """The names of what a forward may run: no containers, no metrics and no losses."""
    return [
        name
        for name, module in model.named_modules()
        if name
        and getattr(type(module), "forward", None) is not nn.Module.forward  # of TorchScript it has none
        and not (hasattr(module, "compute") and hasattr(module, "update"))  # a metric of torchmetrics
        and not type(module).__name__.endswith("Loss")
    ]


def l2_norm(activations: Tensor) -> Tensor:
    """The length of each sample's activations, `(N, D)` to `(N,)`; of a single unit its value, with its sign."""
    if activations.shape[1] == 1:
        return activations[:, 0]
    return torch.linalg.vector_norm(activations, dim=1)


def mean(activations: Tensor) -> Tensor:
    """The mean of each sample's activations, `(N, D)` to `(N,)`."""
    return activations.mean(1)


OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {"l2": l2_norm, "mean": mean}


@contextmanager
def responses_to(
    model: nn.Module, layers: Sequence[str], objective: str
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """Inside, the function `x -> responses, float (N,), by layer as it was written`, all from one forward.

    Raises:
        ValueError: there is no such layer, or none is given.
    """
    chosen = [select(model, layer) for layer in layers]
    if not chosen:
        raise ValueError("dream(layer=...) must name at least one layer, got none")
    names = list(dict.fromkeys(selection.name for selection in chosen))
    with logits_as_float(model), stopping_after(model, names) as run:

        def respond(x: Tensor) -> dict[str, Tensor]:
            outputs = run(x)
            return {s.text: OBJECTIVES[objective](s.of(outputs[s.name]).to(x.dtype)) for s in chosen}

        yield respond


class _Seen(Exception):
    """Ends a forward whose outputs have all been seen."""


@contextmanager
def stopping_after(
    model: nn.Module, names: Sequence[str], *, call: str = "dream"
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """Inside, the function `x -> outputs by name` runs the model until it has these layers' outputs, no further.

    Of a layer that a forward calls several times it is the first output. What follows a layer may write into its
    output; the outputs are safe from that. It raises ValueError where a layer is not run, puts out no floats, or no
    row for each sample.
    """
    run, handles = _UpTo(model, names, call), []
    try:
        for name in dict.fromkeys(names):
            handles.append(model.get_submodule(name).register_forward_hook(partial(run.keep, name)))
        yield run
    finally:
        for handle in handles:
            handle.remove()


class _UpTo:
    """Runs a model until some layers have put something out, which the hooks on them hand to `keep`."""

    def __init__(self, model: nn.Module, names: Sequence[str], call: str) -> None:
        self._model, self._names, self._call = model, dict.fromkeys(names), call
        self._outputs: dict[str, Tensor] = {}
        self._is_running = self._is_told = False

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        found = self._outputs_of(x)
        # As many tokens as samples, `(T, N, D)`, look like samples of tokens; a sample alone tells them apart.
        if not self._is_told and len(x) > 1 and any(each.shape[:2] == (len(x), len(x)) for each in found.values()):
            self._is_told = True
            with torch.no_grad():
                self._outputs_of(x[:1])
        return found

    def keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if name in self._outputs or not self._is_running:
            return
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise ValueError(
                f"{self._call}(layer={name!r}) must put out a tensor of floats, it puts out a {type(output).__name__}"
            )
        is_last = len(self._outputs) + 1 == len(self._names)
        self._outputs[name] = output if is_last else output.clone()  # what comes after may work in place
        if is_last:
            raise _Seen

    def _outputs_of(self, x: Tensor) -> dict[str, Tensor]:
        self._outputs, self._is_running = {}, True
        try:
            with suppress(_Seen):
                self._model(x)
        finally:
            self._is_running = False
        # The graph is not to live longer than whoever asked for it.
        found, self._outputs = self._outputs, {}
        for name in self._names:
            if name not in found:
                raise ValueError(f"{self._call}(layer={name!r}): the model's forward does not run this layer")
        for name, output in found.items():
            if output.ndim == 0 or len(output) != len(x):
                raise ValueError(
                    f"{self._call}(layer={name!r}): of {len(x)} samples it puts out {tuple(output.shape)}, which does "
                    "not begin with an axis of the samples, as where tokens or windows come first: choose a layer "
                    "before or behind it whose output does"
                )
        return found
