"""`renormalized`: embeddings that shorten their own vectors whenever these are looked up get them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def renormalized(model: nn.Module) -> Iterator[None]:
    """Inside, each forward of a model whose embeddings have a `max_norm` begins with the same weights.

    Torch shortens the vectors that are looked up, in the weights: every forward of another text would leave another
    model. Here they are given back as soon as the model has answered.
    """
    shortened: list[tuple[Tensor, Tensor, Tensor]] = []  # the table, which of its vectors, and what they were

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(module.weight, Tensor)
        tokens, table = kwargs.get("input", *args[:1]).flatten(), module.weight.data
        shortened.append((table, tokens, table[tokens]))

    def give_back(*_: Any) -> None:
        while shortened:
            table, tokens, vectors = shortened.pop()
            table[tokens] = vectors

    # Not where the weights are computed anew for each forward, as parametrized ones are.
    tables = [
        module
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        and module.max_norm is not None
        and "weight" in module._parameters
    ]
    handles = [table.register_forward_pre_hook(keep, with_kwargs=True) for table in tables]
    if tables:
        handles.append(model.register_forward_hook(give_back, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        give_back()
