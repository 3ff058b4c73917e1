"""`renormalized`: embeddings that shorten their own vectors whenever these are looked up, held still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def renormalized(model: nn.Module) -> Iterator[None]:
    """Inside, each embedding with a `max_norm` gives what it would, from weights that no look-up changes.

    Torch shortens the vectors of the tokens that are looked up, in the weights: every forward of another text would
    leave another model. Here those of all tokens are shortened, in a copy that stands in for the weights; after it the
    weights are what they were.
    """
    kept = []
    try:
        for module in model.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
                weight, max_norm = module.weight, module.max_norm
                kept.append((module, weight, weight.data, max_norm))
                every_token = torch.arange(len(weight), device=weight.device)
                weight.data = torch.embedding_renorm_(weight.data.clone(), every_token, max_norm, module.norm_type)
                module.max_norm = None
        yield
    finally:
        for module, weight, data, max_norm in reversed(kept):  # two of them may share their weights
            weight.data, module.max_norm = data, max_norm
