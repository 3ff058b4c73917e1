"""`recomputed`: the logits of images, without the memory of the layers between.

A loss of two passes would hold the activations of both until its backward pass: as much as twice the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(model: nn.Module, x: Tensor) -> Tensor:
    """The logits of `model(x)`, whose activations are made anew in the backward pass, and held only there.

    The second time draws the same random numbers, and leaves the running statistics of normalization alone. What is
    passed after it holds its activations as ever, and lets go of them before these are made: pass first what is to be
    recomputed. It costs one forward more.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016, by `torch.utils.checkpoint`.

    Args:
        model: images to logits `(N, C)`.
        x: images, float `(N, ...)`.
    """
    return checkpoint(model, x, use_reentrant=False, context_fn=lambda: (nullcontext(), running_statistics_kept(model)))


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Leaves the running statistics of normalization layers as they were."""
    buffers = [
        buffer for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) for buffer in m.buffers()
    ]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
