"""`evaluating`: a net in evaluation mode for a while, and then each of its modules in the mode that it had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Puts a net into evaluation mode; afterwards a part that did not train among those that did does not train."""
    modes = {module: module.training for module in net.modules()}
    try:
        net.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode  # not module.train(mode): that would set the children too
