"""`LearnedPositions`, `SinusoidalPositions`: where a token stands, added to what it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .parts.turns import turns


class LearnedPositions(nn.Module):
    """One learnt vector per position.

    Args:
        dim: features of a token.
        max_tokens: how many positions there are, >= 1.

    Raises:
        ValueError: `max_tokens` is not >= 1, or a sequence reaches beyond it.

    Shape:
        float `(B, T, dim)` to the same; `start` is the position of the first token.
    """

    def __init__(self, dim: int, max_tokens: int) -> None:
        super().__init__()
        check_counts(self, max_tokens=max_tokens)
        self.vectors = nn.Parameter(torch.randn(max_tokens, dim) * 0.02)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        end, max_tokens = start + x.shape[1], len(self.vectors)
        if end > max_tokens:
            raise ValueError(f"LearnedPositions(max_tokens={max_tokens}): a sequence of {end} tokens reaches beyond")
        return x + self.vectors[start:end]


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position, of wavelengths from 2 pi to 10,000 * 2 pi: Vaswani et al., 2017, section 3.5.

    Args:
        dim: features of a token, an even number.

    Raises:
        ValueError: `dim` is odd.

    Shape:
        float `(B, T, dim)` to the same; `start` is the position of the first token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"SinusoidalPositions(dim=...) must be even, got {dim}")
        self.dim = dim

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        cos, sin = turns(torch.arange(start, start + x.shape[1], device=x.device), self.dim // 2, x)
        return x + torch.stack([sin, cos], -1).flatten(1)
