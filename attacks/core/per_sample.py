"""`PerSample`: values that are cut to some of the samples, as a batch is; and what else is done sample by sample."""

from __future__ import annotations

import dataclasses
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from touchstone.float64 import has_float64

Self = TypeVar("Self", bound="PerSample")


class PerSample:
    """A dataclass whose tensor fields run over the samples of the batch along their first axis.

    A first axis of length 1 (and a tensor without axes) holds for every sample.
    """

    def take(self: Self, rows: Tensor) -> Self:
        """Returns the same value for some samples of the batch, bool `(N,)` or int64 `(M,)`.

        Raises:
            ValueError: a tensor field has neither one row nor one row per sample of the batch.
        """
        if not dataclasses.is_dataclass(self):
            return self  # no fields, nothing to cut
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, PerSample):
                cut = value.take(rows)
                if cut is not value:
                    changes[field.name] = cut
            elif isinstance(value, Tensor) and value.ndim and len(value) != 1:
                changes[field.name] = value[rows.to(value.device)]
        return dataclasses.replace(self, **changes) if changes else self

    def check_rows(self, num_samples: int) -> None:
        """Raises ValueError where a tensor field fits a batch of another size."""
        if not dataclasses.is_dataclass(self):
            return
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, PerSample):
                value.check_rows(num_samples)
            elif isinstance(value, Tensor) and value.ndim and len(value) not in (1, num_samples):
                raise ValueError(
                    f"{type(self).__name__}({field.name}=...) must hold one row per sample "
                    f"({num_samples}) or a single one, got {len(value)}"
                )

    def copied(self: Self) -> Self:
        """The same value with tensors of its own; what else it holds, such as a module, is shared."""
        mine = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, PerSample):
                object.__setattr__(mine, name, value.copied())
            elif isinstance(value, Tensor):
                object.__setattr__(mine, name, value.detach().clone())
        return mine

    def still_is(self, now: object) -> bool:
        """Whether `now`, of which this is an earlier copy (`copied`), is what it was; what was None may have come."""
        own = [field.name for field in dataclasses.fields(self)] if dataclasses.is_dataclass(self) else list(vars(self))
        before = {name: getattr(self, name) for name in own}
        return type(now) is type(self) and all(
            value is None or _is_still(value, getattr(now, name, None)) for name, value in before.items()
        )


def _is_still(before: Any, now: Any) -> bool:
    if isinstance(before, PerSample):
        return before.still_is(now)
    if not isinstance(before, Tensor):
        return before is now or bool(before == now)
    if not isinstance(now, Tensor) or (now.dtype, now.device) != (before.dtype, before.device):
        return False
    return torch.equal(before, now)


def per_sample(value: float | Tensor, like: Tensor) -> float | Tensor:
    """Shapes a number or a `(N,)` tensor of numbers so that it multiplies `like`, `(N, ...)`, row by row."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def wide(which: Tensor, like: Tensor) -> Tensor:
    """Shapes one flag per sample, bool `(N,)`, so that `torch.where` chooses rows of `like`, `(N, ...)`, by it."""
    return which.reshape(-1, *[1] * (like.ndim - 1))


def answers_at_once(device: torch.device) -> bool:
    """Whether its tensors may be asked for their values at every step: an accelerator would be waited for."""
    return device.type == "cpu"


def leave_every(device: torch.device, otherwise: int = 5) -> int:
    """Of how many steps one asks which samples are finished: `otherwise`, where an accelerator would be waited for."""
    return 1 if answers_at_once(device) else otherwise


def widest(device: torch.device) -> torch.dtype:
    """float64 for checks that must not add rounding errors of their own; float32 where a device has no float64."""
    return torch.float64 if has_float64(device) else torch.float32


def norms(rows: Tensor, p: float = 2) -> Tensor:
    """The p-norm of each sample of `rows`, `(N, ...)`, over all its other axes: `(N,)`."""
    if p == float("inf"):  # on a CPU in a tenth of the time of torch's norm, and whatever the memory format
        return rows.abs().amax(tuple(range(1, rows.ndim)))
    rows = rows.flatten(1)
    return rows.abs().sum(1) if p == 1 else torch.linalg.vector_norm(rows, ord=p, dim=1)


def unit_length(rows: Tensor) -> Tensor:
    """Each sample of `rows`, `(N, ...)`, scaled to a Euclidean length of 1; 0 stays 0."""
    rows, _ = _by_largest(rows)
    return rows.div_(per_sample(norms(rows).clamp_min(torch.finfo(rows.dtype).tiny), rows))


def lengths(rows: Tensor) -> Tensor:
    """The Euclidean length of each sample of `rows`, `(N, ...)`, also where its square is 0 or infinite: `(N,)`."""
    rows, largest = _by_largest(rows)
    return norms(rows) * largest


def _by_largest(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample over its largest entry, since the square of a small float32 is 0, and that entry, `(N,)`."""
    largest = norms(rows, float("inf")).clamp_min(torch.finfo(rows.dtype).tiny)
    return rows / per_sample(largest, rows), largest
