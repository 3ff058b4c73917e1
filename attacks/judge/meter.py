"""What an attack costs and what its gradients look like, counted at the model and not by the attack."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.per_sample import norms

_LARGEST_GRADIENT = 1e8


@dataclass(frozen=True)
class Cost:
    """Samples passed through the model.

    Attributes:
        num_forwards: samples forwarded.
        num_backwards: samples whose gradient with respect to the input, or of tokens to their embedding, was taken.
        num_zero_gradients: of these gradients, how many were exactly zero.
        num_broken_gradients: of these gradients, how many were not finite or had an entry above 1e8.
        seconds: time spent in the attack.
    """

    num_forwards: int = 0
    num_backwards: int = 0
    num_zero_gradients: int = 0
    num_broken_gradients: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


class Meter:
    """Counts while it is attached to a model by `metered`."""

    def __init__(self) -> None:
        self.num_forwards = 0
        self.num_backwards = 0
        # Counted where the gradients are, without waiting for an accelerator: [zero, broken].
        self._bad_gradients: Tensor | None = None

    def _see_forward(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = [*args, *kwargs.values()]
        place = next((i for i, value in enumerate(given) if isinstance(value, Tensor)), None)
        if place is None:
            return None
        x: Tensor = given[place]
        self.num_forwards += len(x)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return None
        # A tensor of this forward's own: an attack may use one leaf in many forwards, and add gradients up in it.
        given[place] = x.view_as(x)
        given[place].register_hook(self._see_gradient)
        return tuple(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))

    def _see_output(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Tokens carry no gradient: what is taken at their embedding passes the logits."""
        of_tokens = args and isinstance(args[0], Tensor) and not args[0].is_floating_point()
        if of_tokens and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._see_gradient_of_logits)

    def _see_gradient_of_logits(self, grad: Tensor) -> None:
        self.num_backwards += len(grad)

    def _see_gradient(self, grad: Tensor | None) -> None:
        if grad is None:  # of a layer that has none, as quantised ones: whoever asked for it says so
            return
        self.num_backwards += len(grad)
        largest = norms(grad.detach(), float("inf"))  # which NaN and infinity survive
        bad = torch.stack([(largest == 0).sum(), (~(largest <= _LARGEST_GRADIENT)).sum()])
        self._bad_gradients = bad if self._bad_gradients is None else self._bad_gradients + bad

    def cost(self, seconds: float) -> Cost:
        """What was counted, with the time it took."""
        zero, broken = (0, 0) if self._bad_gradients is None else self._bad_gradients.tolist()
        return Cost(self.num_forwards, self.num_backwards, zero, broken, seconds)


@contextmanager
def metered(model: nn.Module) -> Iterator[Meter]:
    """Counts the samples that pass through `model` forwards and backwards."""
    meter = Meter()
    handles = [
        model.register_forward_pre_hook(meter._see_forward, with_kwargs=True),
        model.register_forward_hook(meter._see_output),
    ]
    try:
        with warnings.catch_warnings():
            # torch.compile asks for the `.grad` of the view that the hook passes on.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            yield meter
    finally:
        for handle in handles:
            handle.remove()
