"""`buffers_kept`: what a model writes into its buffers while it is looked at does not stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Buffer:
    """A buffer as it was: whose, its name, the tensor, and a copy of what it held."""

    owner: nn.Module
    name: str
    tensor: Tensor
    value: Tensor

    def put(self) -> None:
        """Makes it that again, in place, since a compiled net may know the tensor.

        Whatever has changed, or nothing: normalization moves its statistics without a new version of them, and to look
        at the values is to wait for an accelerator. Nor has it a new version after this, which a backward pass that is
        still to come would refuse.
        """
        if getattr(self.owner, self.name, None) is not self.tensor:
            setattr(self.owner, self.name, self.tensor)
        if _is_writable(self.tensor):
            with torch.inference_mode(self.tensor.is_inference()):
                self.tensor.data.copy_(self.value)


@contextmanager
def buffers_kept(model: nn.Module, *, begin: list[Buffer] | None = None) -> Iterator[None]:
    """Leaves all buffers as they were.

    Args:
        model: has them.
        begin: what they are inside, at first; None for what they are.
    """
    before = buffers_of(model)
    try:
        for buffer in begin or ():
            buffer.put()
        yield
    finally:
        for buffer in before:
            buffer.put()


def buffers_of(model: nn.Module) -> list[Buffer]:
    """All buffers of a model as they are now."""
    return [
        Buffer(owner, name, tensor, tensor.detach().clone())
        for owner in model.modules()
        for name, tensor in owner.named_buffers(recurse=False)
    ]


def _is_writable(tensor: Tensor) -> bool:
    """Not where several entries are one number in memory, as `expand` makes them, which no model can change either."""
    if tensor.layout != torch.strided:
        return True
    return all(size < 2 or stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
