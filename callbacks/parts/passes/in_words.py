"""What goes wrong in a measurement says whose it is, and where the model cannot be called as it is there, just that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.checks import as_computed
from touchstone.attacks.core.logits import half_precision
from touchstone.attacks.core.out_of_memory import is_out_of_memory

from .before_training import check_forward
from .samples import Samples


@contextmanager
def named(asked_by: str) -> Iterator[None]:
    """Every ValueError inside begins with the class that measures: a trainer has several callbacks."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(asked_by):
            raise
        raise ValueError(f"{asked_by}: {error}") from error


@contextmanager
def explained(asked_by: str, module: nn.Module, model: nn.Module, samples: Samples) -> Iterator[None]:
    """Whatever goes wrong inside since the model cannot be called with the samples alone says so, as a ValueError.

    Args:
        asked_by: who calls it, for messages.
        module: the user's own.
        model: the same, as it is called.
        samples: those that it is called with.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        x = as_computed(samples.x, model)
        if x.is_floating_point():
            x = x.to(half_precision(model) or x.dtype)
        try:
            with buffers_kept(model), frozen_eval(model), torch.no_grad():
                model(x)
        except Exception as of_forward:
            if str(of_forward) in str(error):  # and not of something before the model was called
                check_forward(module, asked_by)
                raise ValueError(
                    f"{asked_by}: the model cannot be called with the samples alone, {x.dtype} {tuple(x.shape)}: "
                    f"{type(of_forward).__name__}: {of_forward}"
                ) from error
        raise
