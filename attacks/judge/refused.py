"""`unless_refused`: a probe that a model has no answer for costs a line, and not the evaluation that it comes after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..core.out_of_memory import is_out_of_memory


def unless_refused(model: nn.Module, name: str, probe: Callable[[], list[str]]) -> list[str]:
    """The signs that a probe finds, or where the model's forward fails in it, a line that says so.

    Probes pass what nobody else does, such as plain grey, or one sample alone. Any other error is none of the model's,
    and where memory did not suffice, all is.
    """
    has_failed = False

    def see(_: nn.Module, args: tuple[Any, ...], logits: Tensor | None) -> None:
        nonlocal has_failed
        has_failed |= logits is None  # whoever meets an error may ask once more, what it was

    handle = model.register_forward_hook(see, always_call=True)
    try:
        return probe()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not has_failed or is_out_of_memory(error):
            raise
        return [f"{name}: a probe for masking came to nothing, since the model's forward failed: {error}"]
    finally:
        handle.remove()
