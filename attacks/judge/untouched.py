"""Proof that an attack left the model as it found it."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from ..core.per_sample import widest


class Untouched:
    """Remembers a model's state in a few numbers per tensor, and says what has changed since."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._state = self._describe()

    def _describe(self) -> dict[str, tuple[float, ...]]:
        model = self._model
        modes = {f"the mode of {name or 'the model'}": (float(m.training),) for name, m in model.named_modules()}
        needs = {f"requires_grad of {name}": (float(p.requires_grad),) for name, p in model.named_parameters()}
        grads = {
            f"the gradient of {name}": (float(id(p.grad)), float(p.grad._version))
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        return {**modes, **needs, **grads, **self._values()}

    @torch.no_grad()
    def _values(self) -> dict[str, tuple[float, ...]]:
        """A sum and a sum of squares of each parameter and buffer: one pass, and no copy of the weights."""
        named = list(chain(self._model.named_parameters(), self._model.named_buffers()))
        sums = [_sums(tensor) for _, tensor in named]
        on_host = [s.tolist() for s in sums]
        return {name: tuple(values) for (name, _), values in zip(named, on_host, strict=True)}

    def change(self) -> str | None:
        """The first thing that differs from the state at the start, or None."""
        now = self._describe()
        return next((key for key in (*self._state, *now) if self._state.get(key) != now.get(key)), None)


def _sums(tensor: Tensor) -> Tensor:
    wide = widest(tensor.device)
    if tensor.is_floating_point() or tensor.is_complex():
        values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        values = values.nan_to_num(nan=1e9)  # NaN differs from itself
        return torch.stack([values.sum(dtype=wide), torch.linalg.vector_norm(values.float()).to(wide)])
    return torch.stack([tensor.sum(dtype=wide), tensor.ne(0).sum(dtype=wide)])
