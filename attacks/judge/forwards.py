"""`Forwards`: the judge's own look at the model: batch by batch, checked, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.checks import check_logits
from ..core.out_of_memory import is_out_of_memory
from .halving import Halving


@dataclass
class _Tally:
    """Samples forwarded so far, and how many the last forward took."""

    num_forwards: int = 0
    last: int | None = None


class Forwards:
    """Computes logits for the judge.

    Args:
        model: images to logits.
        halving: samples in a forward.
        check: raises ValueError where logits of samples with these ids, at a place in words, are not what they must be.
    """

    def __init__(
        self, model: nn.Module, halving: Halving, *, check: Callable[[Tensor, Tensor, str], None] = check_logits
    ) -> None:
        self._model, self._halving, self._check = model, halving, check
        self._tally = _Tally()

    @property
    def num_forwards(self) -> int:
        """Samples forwarded so far."""
        return self._tally.num_forwards

    def count(self, num_forwards: int) -> None:
        """Counts samples that the judge has forwarded by other ways."""
        self._tally.num_forwards += num_forwards

    @property
    def batch_size(self) -> int:
        """Samples that fit into a forward, as far as is known."""
        return self._halving.size

    def in_parts(self, num_samples: int, work: Callable[[slice], None]) -> None:
        """Calls `work` with as many samples at a time as fit (`Halving.run`)."""
        self._halving.run(num_samples, work)

    def at(self, model: nn.Module) -> Forwards:
        """The same for another model, counted together."""
        other = Forwards(model, self._halving, check=self._check)
        other._tally = self._tally
        return other

    def unchecked(self) -> Forwards:
        """The same for logits that may be anything, counted together."""
        other = Forwards(self._model, self._halving, check=lambda logits, ids, where: None)
        other._tally = self._tally
        return other

    @torch.no_grad()
    def __call__(self, x: Tensor, ids: Tensor, where: str, batch_size: int | None = None) -> Tensor:
        """The logits of all samples, `(N, C)`, `batch_size` in a forward if that is fewer; `where` is for messages.

        Raises:
            ValueError: what the model returned are no finite logits, or it takes only so many samples.
        """
        parts: list[Tensor] = []

        def forward(rows: slice) -> None:
            logits = self._forward(x[rows])
            self._check(logits, ids[rows], f"{where}, batch {len(parts)}")
            parts.append(logits)
            self.count(len(logits))
            self._tally.last = len(x[rows])

        self._halving.run(len(x), forward, batch_size)
        dtype = x.dtype if x.is_floating_point() else torch.float32
        return torch.cat(parts) if parts else torch.empty(0, 2, dtype=dtype, device=x.device)

    def elsewhere(self, x: Tensor, ids: Tensor, where: str) -> Tensor:
        """The logits of `x` in another order and another batch size than an attack has seen it in."""
        size = max(1, (2 * len(x)) // 3)
        return self(x.flip(0), ids.flip(0), where, size).flip(0)

    def _forward(self, x: Tensor) -> Tensor:
        try:
            return self._model(x)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            taken = self._tally.last
            if taken not in (None, len(x)) and self._takes(x[0], taken) and not self._takes(x[0], len(x)):
                raise ValueError(
                    f"the model took {taken} samples and refuses {len(x)} ({error}): it must take any number of them"
                ) from error
            if isinstance(error, RuntimeError):
                self._check_precisions(x, error)
            raise

    def _takes(self, sample: Tensor, num_samples: int) -> bool:
        """Whether the model takes one sample so many times."""
        try:
            self._model(sample.expand(num_samples, *sample.shape).clone())
        except Exception:  # whatever a model raises
            return False
        return True

    def _check_precisions(self, x: Tensor, error: RuntimeError) -> None:
        precisions = {str(p.dtype).removeprefix("torch.") for p in self._model.parameters() if p.is_floating_point()}
        if len(precisions) >= 2:
            raise ValueError(
                f"the model's weights have several precisions ({', '.join(sorted(precisions))}) and its forward fails "
                f"on {x.dtype} images: {error}; use `model.float()`, or convert between the layers"
            ) from error
