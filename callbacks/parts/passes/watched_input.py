"""`watched_input`: what a model's input gradient is taken by: pixels themselves, and tokens at their embedding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from touchstone.attacks.core.embedding import find_embedding, watched_vectors


@contextmanager
def watched_input(model: nn.Module, x: Tensor, embedding: str | None, asked_by: str) -> Iterator[list[Tensor]]:
    """Inside, a forward of `x` leaves in the list the one tensor to differentiate by, `(N, ...)`.

    Args:
        model: takes `x`.
        x: pixels, float `(N, ...)`, or whole numbers.
        embedding: the name of the `nn.Embedding` in the model; None for the only one.
        asked_by: the class whose option `embedding` it is, for messages.

    Raises:
        ValueError: the samples are whole numbers, and the model has no such embedding.
    """
    if x.is_floating_point():
        yield [x.requires_grad_()]
        return
    with watched_vectors(find_embedding(model, embedding, asked_by)) as seen:
        yield seen
