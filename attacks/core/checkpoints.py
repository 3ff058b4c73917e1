"""`checkpoints_not_reentrant`: gradients of chosen tensors, also in nets that compute their activations twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import CheckpointFunction, checkpoint

_depth = threading.local()
_lock = threading.Lock()
_num_inside = 0


@contextmanager
def checkpoints_not_reentrant() -> Iterator[None]:
    """Inside, in this thread, `checkpoint(..., use_reentrant=True)` of torch works as with `use_reentrant=False`.

    A reentrant one refuses `torch.autograd.grad`: its backward pass would write into the `.grad` of all weights inside.
    The other saves as much memory, gives the same gradients of whatever is asked for, and writes into no `.grad`.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(change: int) -> None:
    """One context more or less, in this thread and in all; torch is as it was while there is none."""
    global _num_inside
    _depth.of_thread = getattr(_depth, "of_thread", 0) + change
    with _lock:
        _num_inside += change
        if _num_inside and "apply" not in vars(CheckpointFunction):
            CheckpointFunction.apply = staticmethod(_apply)
        elif not _num_inside:
            del CheckpointFunction.apply


def _apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    if not getattr(_depth, "of_thread", 0):
        return super(CheckpointFunction, CheckpointFunction).apply(function, preserve_rng_state, *args)
    modes = _get_current_function_mode_stack()
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=preserve_rng_state,
        context_fn=lambda: (nullcontext(), _Inside(modes)),
    )


class _Inside(AbstractContextManager[None]):
    """What is computed again is computed as it was, though the contexts that it was computed in have ended."""

    def __init__(self, modes: Sequence[TorchFunctionMode]) -> None:
        self._modes, self._entered = modes, list[ExitStack]()

    def __enter__(self) -> None:  # once for every gradient that is taken of the same forward
        self._entered.append(ExitStack())
        for mode in self._modes:
            self._entered[-1].enter_context(mode)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)
