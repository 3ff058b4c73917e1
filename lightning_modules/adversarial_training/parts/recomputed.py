"""`recomputed`: the logits of images, without the memory of the layers between.

A loss of two passes would hold the activations of both until its backward pass: as much as twice the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from touchstone.attacks.core.buffers import buffers_kept, buffers_of


def recomputed(model: nn.Module, x: Tensor, *, before_again: Callable[[], None] | None = None) -> Tensor:
    """The logits of `model(x)`, whose activations are made anew in the backward pass, and held only there.

    The second time begins with the same buffers, such as the vectors of a spectral norm, draws the same random numbers,
    and leaves no trace in the buffers, such as the running statistics of normalization. What is passed after it holds
    its activations as ever, and lets go of them before these are made: pass first what is to be recomputed. It costs
    one forward more.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016, by `torch.utils.checkpoint`.

    Args:
        model: images to logits `(N, C)`.
        x: images, float `(N, ...)`.
        before_again: called when the second time begins, such as to give back weights that have moved since the first.
    """
    before = buffers_of(model)

    @contextmanager
    def again() -> Iterator[None]:
        if before_again is not None:
            before_again()
        with buffers_kept(model, begin=before):
            yield

    contexts = nullcontext(), again()
    return checkpoint(model, x, use_reentrant=False, context_fn=lambda: contexts)
