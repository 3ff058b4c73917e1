"""`measuring`: the context in which every callback asks a model something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.checks import as_computed
from touchstone.attacks.core.logits import logits_as_float

from .samples import Samples


@contextmanager
def measuring(model: nn.Module, samples: Samples, *, freeze: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    """The context of a measurement, with samples and labels that can carry gradients in it.

    Inside, `model(x)` gives logits in full precision, also where its output has them as `.logits`.
    """
    with buffers_kept(model), frozen_eval(model, freeze=freeze), logits_as_float(model):
        yield as_computed(samples.x, model), samples.y.clone()
