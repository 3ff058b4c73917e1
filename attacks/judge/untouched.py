"""Proof that an attack left the model as it found it."""

from __future__ import annotations

import math
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.frozen_eval import is_training

_MIX = 0x5851F42D4C957F2D  # a large odd number (Knuth, MMIX): 64-bit sums and products wrap around


class Untouched:
    """Remembers a model's state in a few numbers per tensor, and says what has changed since."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ignored: set[str] = set()
        self._state = self._describe()

    def _describe(self) -> dict[str, tuple[object, ...]]:
        model = self._model
        modules = {
            f"the module {name}" if name else "the model": (module, type(module))
            for name, module in model.named_modules()
        }
        modes = {f"the mode of {name or 'the model'}": (is_training(m),) for name, m in model.named_modules()}
        needs = {f"requires_grad of {name}": (p.requires_grad,) for name, p in model.named_parameters()}
        grads = {
            f"the gradient of {name}": (id(p.grad), p.grad._version)
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        hooks = {f"the hooks of {name or 'the model'}": _hooks(m) for name, m in model.named_modules()}
        # What torchmetrics counts is in no buffer.
        metrics = {
            f"the metric {name or 'itself'}": (m._update_count,)
            for name, m in model.named_modules()
            if hasattr(m, "_defaults") and hasattr(m, "_update_count")
        }
        return {**modules, **modes, **needs, **grads, **hooks, **metrics, **self._values()}

    @torch.no_grad()
    def _values(self) -> dict[str, tuple[int, ...]]:
        """A checksum of each parameter and buffer (`checksum`), so that no copy of the weights is kept."""
        named = list(chain(self._model.named_parameters(), self._model.named_buffers()))
        sums = [checksum(tensor) for _, tensor in named]
        return {name: (int(value),) for (name, _), value in zip(named, sums, strict=True)}

    def ignore_changes(self) -> list[str]:
        """What has changed by now, which is what the model itself changes, and no sign of an attack from now on."""
        changed = self._changes()
        self._ignored.update(changed)
        return changed

    def check(self, name: str) -> None:
        """Raises ValueError where an attack of this name, which has run or learned, has changed the model."""
        changed = next((key for key in self._changes() if key not in self._ignored), None)
        if changed is not None:
            raise ValueError(
                f"attack {name!r} changed the model: {changed} is not what it was before; it stays so, load the "
                "weights again"
            )

    def _changes(self) -> list[str]:
        now = self._describe()
        return [key for key in dict.fromkeys((*self._state, *now)) if self._state.get(key) != now.get(key)]


def _hooks(module: nn.Module) -> tuple[int, ...]:
    """How many there are of each kind, and whether the forward was replaced."""
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    is_replaced = "forward" in vars(module) and not isinstance(module, torch.jit.ScriptModule)  # which keeps it there
    return (*map(len, kinds), is_replaced)


def checksum(tensor: Tensor) -> Tensor:
    """A sum of the bits as integers: exact, where a sum of floats would round small changes away.

    Laid out as a square whose rows and columns have odd weights, so that exchanged entries show as well.
    """
    if tensor.layout != torch.strided:
        total = torch.zeros((), dtype=torch.int64, device=tensor.device)
        for part in _parts(tensor):
            total = _MIX * total + checksum(part)
        return total
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    octets = values.flatten().contiguous().view(torch.uint8)
    num_missing = -len(octets) % 8
    if num_missing or octets.storage_offset() % 8:
        octets = F.pad(octets, (0, num_missing))
    words = octets.view(torch.int64)  # of which sums take a quarter of the time of sums over 32 bits
    side = math.isqrt(len(words))
    square, rest = words[: side * side].reshape(side, side), words[side * side :]
    weights = torch.arange(1, 4 * side + 4, 2, device=words.device)  # at most 2 * side are left over
    row_sum, column_sum = (square.sum(dim) * weights[:side] for dim in (0, 1))
    return row_sum.sum() + _MIX * (column_sum.sum() + _MIX * (rest * weights[: len(rest)]).sum())


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that a sparse one is made of."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return tensor.indices(), tensor.values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
