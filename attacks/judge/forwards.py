"""`Forwards`: the judge's own look at the model: batch by batch, checked, counted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.checks import check_logits


class Forwards:
    """Computes logits for the judge.

    Args:
        model: images to logits.
        batch_size: samples in a forward.
        check: raises ValueError where logits of samples with these ids, at a place in words, are not what they must be.
    """

    def __init__(
        self, model: nn.Module, batch_size: int, *, check: Callable[[Tensor, Tensor, str], None] = check_logits
    ) -> None:
        self._model, self._batch_size, self._check = model, batch_size, check
        self._counted = [0]

    @property
    def num_forwards(self) -> int:
        """Samples forwarded so far."""
        return self._counted[0]

    def at(self, model: nn.Module) -> Forwards:
        """The same for another model, counted together."""
        other = Forwards(model, self._batch_size, check=self._check)
        other._counted = self._counted
        return other

    @torch.no_grad()
    def __call__(self, x: Tensor, ids: Tensor, where: str, batch_size: int | None = None) -> Tensor:
        """The logits of all samples, `(N, C)`.

        Args:
            x: images, `(N, ...)`.
            ids: sample ids, int64 `(N,)`, for messages.
            where: which forward this is, for messages.
            batch_size: samples in a forward, if not the usual number.

        Raises:
            ValueError: what the model returned are no finite logits.
        """
        size = batch_size or self._batch_size
        parts = [torch.empty(0, 2, dtype=x.dtype if x.is_floating_point() else torch.float32, device=x.device)]
        for number, (rows, row_ids) in enumerate(zip(x.split(size), ids.split(size), strict=True)):
            if len(rows):  # an empty tensor splits into one empty part
                logits = self._forward(rows)
                self._check(logits, row_ids, f"{where}, batch {number}")
                parts.append(logits)
                self._counted[0] += len(rows)
        return torch.cat(parts[1:] or parts)

    def elsewhere(self, x: Tensor, ids: Tensor, where: str) -> Tensor:
        """The logits of `x` in another order and another batch size than an attack has seen it in."""
        size = max(1, (2 * len(x)) // 3)
        return self(x.flip(0), ids.flip(0), where, size).flip(0)

    def _forward(self, x: Tensor) -> Tensor:
        try:
            return self._model(x)
        except RuntimeError as error:
            precisions = {
                str(p.dtype).removeprefix("torch.") for p in self._model.parameters() if p.is_floating_point()
            }
            if len(precisions) < 2:
                raise
            raise ValueError(
                f"the model's weights have several precisions ({', '.join(sorted(precisions))}) and its forward fails "
                f"on {x.dtype} images: {error}; use `model.float()`, or convert between the layers"
            ) from error
