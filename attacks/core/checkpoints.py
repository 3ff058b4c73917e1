"""`checkpoints_not_reentrant`: gradients of chosen tensors, also in nets that compute their activations twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction, checkpoint


@contextmanager
def checkpoints_not_reentrant() -> Iterator[None]:
    """Inside, `checkpoint(..., use_reentrant=True)` of torch works as with `use_reentrant=False`.

    A reentrant one refuses `torch.autograd.grad`: its backward pass would write into the `.grad` of all weights inside.
    The other saves as much memory, gives the same gradients of whatever is asked for, and writes into no `.grad`.
    """
    before = vars(CheckpointFunction).get("apply")
    CheckpointFunction.apply = staticmethod(_not_reentrant)
    try:
        yield
    finally:
        if before is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = before


def _not_reentrant(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)
