"""`embed`: token ids to vectors, with a word on ids that are none."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class OfTokens(Protocol):
    """A net that begins with an embedding."""

    vocab_size: int
    embedding: nn.Embedding


def embed(net: OfTokens, tokens: Tensor) -> Tensor:
    """What the embedding of a net gives, float `(B, T, D)`, for token ids, int64 or int32 `(B, T)`.

    Raises:
        ValueError: they are something else; on a CPU, also where an id is beyond the vocabulary.
    """
    name = type(net).__name__
    if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name}: the tokens must be ids `(texts, tokens)`, got {tokens.dtype} {tuple(tokens.shape)}"
            + ("; use `.long()`" if tokens.ndim == 2 and not tokens.is_floating_point() else "")
        )
    try:
        return net.embedding(tokens)
    except IndexError:  # looked at only now: on an accelerator every look waits for it
        raise ValueError(
            f"{name}(vocab_size={net.vocab_size}): the tokens must be ids from 0 to {net.vocab_size - 1}, got "
            f"{int(tokens.min())} to {int(tokens.max())}"
        ) from None
