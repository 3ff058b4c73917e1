"""`FullMean`: the mean of an epoch, which keeps its digits in a module of half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric


class FullMean(MeanMetric):
    """A mean of values, added up in float32 or wider whatever its module is converted to.

    Lightning turns a module into bfloat16 by `module.to(dtype)`, and torchmetrics' own sums with it: in 8 binary digits
    a sum stops growing after some hundred values, and its mean is any number. A value that is NaN makes the mean NaN,
    where torchmetrics would leave it out.
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy=float("nan"))
        self.set_dtype(_wide(torch.get_default_dtype()))  # which is a half one in `Trainer.init_module()`

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Any:
        def move(state: Tensor) -> Tensor:
            moved = fn(state)
            wide = _wide(moved.dtype)
            return moved if moved.dtype == wide else state.to(moved.device, wide)

        return super()._apply(move, exclude_state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        for state in self._defaults:  # a half one, of a checkpoint whose mean was another
            setattr(self, state, getattr(self, state).to(_wide(getattr(self, state).dtype)))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
