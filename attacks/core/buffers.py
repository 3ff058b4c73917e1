"""`buffers_kept`: what a model writes into its buffers while it is looked at does not stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Buffers:
    """The buffers of one module as they were: which it had, those of them that are not saved, and what they held."""

    owner: nn.Module
    tensors: dict[str, Tensor | None]
    not_saved: set[str]
    values: dict[str, Tensor]

    def put(self) -> None:
        """Makes them that again, in place, since a compiled net may know the tensors."""
        now = dict(self.owner._buffers.items())
        if [(name, id(tensor)) for name, tensor in now.items()] != [(n, id(t)) for n, t in self.tensors.items()]:
            self.owner._buffers.clear()
            self.owner._buffers.update(self.tensors)
            self.owner._non_persistent_buffers_set = set(self.not_saved)
        for name, value in self.values.items():
            tensor = self.tensors[name]
            assert tensor is not None
            if not _is_still(tensor, value):
                with torch.inference_mode(tensor.is_inference()):
                    tensor.data.copy_(value)  # no new version, which a backward pass that is to come would refuse


@contextmanager
def buffers_kept(model: nn.Module, *, begin: Sequence[Buffers] = ()) -> Iterator[None]:
    """Leaves all buffers as they were: those that the model has, and what they hold.

    Args:
        model: has them.
        begin: what they are inside, at first; none for what they are.
    """
    before = buffers_of(model)
    try:
        for buffers in begin:
            buffers.put()
        yield
    finally:
        for buffers in before:
            buffers.put()


def buffers_of(model: nn.Module) -> list[Buffers]:
    """All buffers of a model as they are now, module by module."""
    found = []
    for owner in model.modules():
        tensors = dict(owner._buffers.items())
        values = {name: tensor.detach().clone() for name, tensor in tensors.items() if tensor is not None}
        found.append(Buffers(owner, tensors, set(getattr(owner, "_non_persistent_buffers_set", ())), values))
    return found


def _is_still(tensor: Tensor, value: Tensor) -> bool:
    """Whether a buffer need not be written: normalization moves its statistics without a new version of them.

    To look at its values is to wait for an accelerator. On a CPU it spares those that can only be read, such as a file
    that is mapped into memory.
    """
    if tensor.layout != torch.strided:
        return False
    if not all(size < 2 or stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        return True  # several entries are one number in memory, as `expand` makes them: no model can write it either
    return tensor.device.type == "cpu" and torch.equal(tensor, value)
