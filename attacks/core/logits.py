"""What a model's output is taken to be: one tensor of logits in full precision, and of those a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: the tensor itself, its attribute or its key `logits`, at least float32.

    Raises:
        ValueError: the output is a tuple, or something else without `logits`.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if not isinstance(logits, Tensor):
        raise ValueError(
            "the model must return a tensor of logits, or an output with `.logits` or ['logits']; it returned a "
            f"{_described(output)}: let its forward return the logits, or wrap it in a module whose forward picks them"
        )
    if not logits.is_floating_point():
        raise ValueError(f"the model must return floating point logits, got {logits.dtype}")
    return logits if logits.dtype == torch.float64 else logits.float()


def _described(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"{kind} with the keys {list(output)}"
    if not isinstance(output, (tuple, list)):
        return kind
    parts = [str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__ for part in output]
    return f"{kind} of {' and '.join(parts)}"


def predicted(logits: Tensor) -> Tensor:
    """The class that a model takes each sample for, int64 `(N,)`, of logits `(N, C)`; -1, no class, where one is NaN.

    So that where a model gives NaN it is not right, and takes the sample for no class that somebody wants.
    """
    largest = logits.detach().argmax(1)  # for which it takes NaN
    is_nan = logits.detach().gather(1, largest[:, None])[:, 0].isnan()
    return largest.masked_fill(is_nan, -1)


def half_precision(model: nn.Module) -> torch.dtype | None:
    """That of all floating point weights of a model, where it is a half one."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return next(iter(dtypes)) if len(dtypes) == 1 and dtypes <= {torch.bfloat16, torch.float16} else None


def as_taken(x: Tensor, model: nn.Module) -> Tensor:
    """Samples as the weights of a model take them: floats in half precision, where the weights are in that."""
    return x.to(half_precision(model) or x.dtype) if x.is_floating_point() else x


@contextmanager
def logits_as_float(model: nn.Module) -> Iterator[None]:
    """Inside, `model(x)` takes float32 whatever precision its weights have, and gives `logits_of` its output."""
    half = half_precision(model)

    def cast_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if half is None or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return None
        return (args[0].to(half), *args[1:])

    def take_logits(_: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        return logits_of(output)

    handles = [model.register_forward_pre_hook(cast_input), model.register_forward_hook(take_logits)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
