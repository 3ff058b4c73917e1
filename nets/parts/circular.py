"""`CircularPadding`: follows padding by the other end of an axis, which torch makes of copies into a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .dependence import Dependence
from .windows import padded


class CircularPadding(TorchFunctionMode):
    """While it is active, circular padding is one operation with a rule of its own."""

    def __init__(self, dependence: Dependence) -> None:
        super().__init__()
        self.dependence = dependence

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "pad" and "circular" in (*args[2:3], kwargs.get("mode")):
            x: Tensor = args[0]
            pad: list[int] = list(args[1] if len(args) > 1 else kwargs["pad"])
            if (seen := self.dependence.see(x)) is not None:
                shape = list(x.shape)
                for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
                    dim, below = x.ndim - place, x.shape[-place]
                    shape[dim] += before + after
                    window = padded(shape[dim], below, before=before, mode="circular")
                    seen = seen.with_sight(dim, lambda sight, window=window: sight.through(window))  # type: ignore[misc]
                output = torch.empty(shape, device="meta", dtype=x.dtype)
                self.dependence.set(output, seen)
                return output
        return func(*args, **kwargs)
