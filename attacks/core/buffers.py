"""`buffers_kept`: what a model writes into its buffers while it is looked at does not stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@dataclass(frozen=True, eq=False)
class Buffers:
    """The buffers of one module as they were: which it had, those of them that are not saved, and what they held.

    And its plain attributes, of which one may say that a buffer was made or written.
    """

    owner: nn.Module
    tensors: dict[str, Tensor | None]
    not_saved: set[str]
    values: dict[str, Tensor]
    versions: dict[str, int]
    attributes: dict[str, Any]

    @property
    def are_written(self) -> bool:
        """Whether there are other buffers now, or they hold something else, as far as that is seen without waiting."""
        return (
            self._are_others
            or _versions_of(self.tensors) != self.versions
            or any(_holds(self.tensors[name], value) is False for name, value in self.values.items())
        )

    def put(self, *, attributes: bool) -> None:
        """Makes them that again, in place, since a compiled net may know the tensors.

        Args:
            attributes: whether to put back what the module knew, too.
        """
        if attributes:
            self._put_attributes()
        if self._are_others:
            self.owner._buffers.clear()
            self.owner._buffers.update(self.tensors)
            self.owner._non_persistent_buffers_set = set(self.not_saved)
        for name, value in self.values.items():
            tensor = self.tensors[name]
            assert tensor is not None
            # What holds them is left alone: a file that is mapped into memory may be there to be read only.
            if not _holds(tensor, value) and _can_be_written(tensor):
                with torch.inference_mode(tensor.is_inference()):
                    tensor.data.copy_(value)  # no new version, which a backward pass that is to come would refuse

    @property
    def _are_others(self) -> bool:
        now = [(name, id(tensor)) for name, tensor in self.owner._buffers.items()]
        return now != [(name, id(tensor)) for name, tensor in self.tensors.items()]

    def _put_attributes(self) -> None:
        now = vars(self.owner)
        for name in _attributes_of(self.owner).keys() - self.attributes.keys():
            del now[name]
        now.update(self.attributes)


@contextmanager
def buffers_kept(model: nn.Module, *, begin: Sequence[Buffers] = ()) -> Iterator[None]:
    """Leaves all buffers as they were: those that the model has, and what they hold.

    Where any was made or written, the plain attributes of all modules are put back too, since one of them may say that
    it was, as where a first batch decides a buffer. What changes inside a dict or a list stays.

    Args:
        model: has them.
        begin: what they are inside, at first; none for what they are.
    """
    before = buffers_of(model)
    are_written = any(buffers.are_written for buffers in begin)
    try:
        for buffers in begin:
            buffers.put(attributes=are_written)
        yield
    finally:
        are_written = are_written or any(buffers.are_written for buffers in before)
        for buffers in before:
            buffers.put(attributes=are_written)


def buffers_of(model: nn.Module) -> list[Buffers]:
    """All buffers of a model as they are now, module by module."""
    found = []
    for owner in model.modules():
        tensors = dict(owner._buffers.items())
        values = {name: tensor.detach().clone() for name, tensor in tensors.items() if tensor is not None}
        not_saved = set(getattr(owner, "_non_persistent_buffers_set", ()))
        found.append(Buffers(owner, tensors, not_saved, values, _versions_of(tensors), _attributes_of(owner)))
    return found


def _versions_of(tensors: dict[str, Tensor | None]) -> dict[str, int]:
    """How often each of these was written in place, as far as that is counted."""
    return {name: t._version for name, t in tensors.items() if t is not None and not t.is_inference()}


def _attributes_of(owner: nn.Module) -> dict[str, Any]:
    """What a module keeps beside weights, buffers, layers, hooks and its mode."""
    return {name: value for name, value in vars(owner).items() if name not in _OF_EVERY_MODULE}


def _holds(tensor: Tensor | None, value: Tensor) -> bool | None:
    """Whether a buffer has these values; None where that is not seen at once: on an accelerator, or of a sparse one.

    Normalization moves its statistics without a new version of them, so that versions do not tell.
    """
    assert tensor is not None
    return torch.equal(tensor, value) if tensor.device.type == "cpu" and tensor.layout == torch.strided else None


def _can_be_written(tensor: Tensor) -> bool:
    """Not where several entries are one number in memory, as `expand` makes them: no model can write it either."""
    if tensor.layout != torch.strided:
        return True
    return all(size < 2 or stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
