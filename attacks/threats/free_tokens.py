"""What threats for text have in common: which tokens may change."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.eps import checksum
from ..core.threat import Threat


class FreeTokens(Threat):
    """A threat that some tokens are safe from; a subclass is a frozen dataclass (`repr=False`).

    Subclasses have the fields `protected` (ids that are never changed) and `mask` (bool `(N, T)` or `(1, T)`: only
    tokens where it is True may change; None for all of them).
    """

    protected: tuple[int, ...]
    mask: Tensor | None

    def __post_init__(self) -> None:
        name, protected = type(self).__name__, tuple(self.protected)
        if any(isinstance(token, bool) or not isinstance(token, int) or token < 0 for token in protected):
            raise ValueError(f"{name}(protected=...) must be token ids >= 0, got {self.protected!r}")
        object.__setattr__(self, "protected", protected)
        mask = self.mask
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 2):
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            raise ValueError(
                f"{name}(mask=...) must be bool `(N, T)` or `(1, T)`, True where tokens may change, got {given:.80}"
            )

    def free(self, tokens: Tensor) -> Tensor:
        """Which tokens may change: bool like `tokens`, `(N, T)`."""
        free = torch.ones_like(tokens, dtype=torch.bool)
        for token in self.protected:
            free &= tokens != token
        return free if self.mask is None else free & self.mask.to(tokens.device)

    def check_input(self, x: Tensor) -> None:
        if x.is_floating_point() or x.ndim != 2:
            raise ValueError(f"tokens must be whole numbers `(N, T)`, got {x.dtype} {tuple(x.shape)}")
        if self.mask is not None and self.mask.shape[1] not in (1, x.shape[1]):
            raise ValueError(
                f"{type(self).__name__}(mask=...) must have one column for each of {x.shape[1]} tokens, got "
                f"{tuple(self.mask.shape)}"
            )

    def _shown(self) -> str:
        """What is printed of both fields; a mask with a checksum, since threats are known by what they print."""
        protected = f", protected={self.protected!r}" if self.protected else ""
        if self.mask is None:
            return protected
        return f"{protected}, mask=<{tuple(self.mask.shape)}, {checksum(self.mask)}>"
