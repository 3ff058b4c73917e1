"""`judging`: the context that a judge looks at a model in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..core.buffers import buffers_kept
from ..core.frozen_eval import frozen_eval
from ..core.logits import logits_as_float


@contextmanager
def judging(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, a model in evaluation mode gives logits in full precision; after it all is as it was, buffers too."""
    with (
        buffers_kept(model),
        frozen_eval(model),
        logits_as_float(model),
        torch.autocast(device.type, enabled=False),
    ):
        yield
