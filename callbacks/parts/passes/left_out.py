"""`LeftOut`: what a validation has besides samples and labels is said, as a model is measured on the samples alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .batch_keys import images_and_labels


class LeftOut:
    """Looks at a batch of each data loader, and at how the module calls itself with it; warns once of each.

    Not at the calls of a compiled module, which would be compiled once more and show nothing.
    """

    def __init__(self, asked_by: str, keys: Sequence[str | int] | None) -> None:
        self._asked_by, self._keys = asked_by, keys
        self._batch: Any = None
        self._labels: Tensor | None = None  # those of the batch: a forward that has the loss in it may take them
        self._handle: RemovableHandle | None = None
        self._seen: set[int] = set()
        self._said: set[str] = set()

    def begin(self) -> None:
        """Forgets which loaders it has seen."""
        self._seen.clear()

    def watch(self, module: nn.Module, batch: Any, loader_index: int) -> None:
        """Begins to look at the module's own call, that of a batch, where it is the first of its loader."""
        self.let_go()
        if loader_index in self._seen:
            return
        self._seen.add(loader_index)
        try:
            _, self._labels = images_and_labels(batch, self._keys)
        except ValueError:  # the measurement says so
            return
        if self._keys is None and isinstance(batch, (tuple, list)) and len(batch) > 2:
            self._say(
                "batch",
                f"the batch is a {type(batch).__name__} of {len(batch)}: what is measured takes its first for the "
                "samples, its second for their labels, and leaves the rest out; `batch_keys=(0, 1)` says that these "
                "are they, `(0, 2)` that the third are the labels",
            )
        if "call" not in self._said and getattr(module, "_compiler_ctx", None) is None:
            self._batch, self._handle = batch, module.register_forward_pre_hook(self._look, with_kwargs=True)

    def let_go(self) -> None:
        """Looks no more."""
        self._batch = self._labels = None
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _look(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(value is self._batch for value in args):
            return  # on several processes a module is called with the batch first, and forward stands for the step
        labels = self._labels
        self.let_go()  # a callback may call the module too, later
        try:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):  # which the call itself tells
            return
        names = [name for name, value in _tensors(given) if not _are_those(value, labels)]
        if len(names) > 1:
            what = " and ".join(map(repr, dict.fromkeys(names[1:])))
            self._say(
                "call",
                f"validation gives the model {what} besides {names[0]!r}, and what is measured gives it the samples "
                "alone, so that figures may differ, as `accuracy` and `clean_accuracy`; let `forward` make the rest "
                "from the samples, as a mask of padding can be, or make them one tensor",
            )

    def _say(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            rank_zero_warn(f"{self._asked_by}: {message}")


def _are_those(value: Tensor, labels: Tensor | None) -> bool:
    """Whether these are the labels, perhaps as other numbers or in another shape."""
    if labels is None or value.numel() != labels.numel() or value.device != labels.device:
        return False
    one, other = (tensor.detach().cpu().flatten() for tensor in (value, labels))  # since not every device has float64
    return value is labels or torch.equal(one.double(), other.double())


def _tensors(given: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a call with the names of their parameters, in the order of these; of `**kwargs` too."""
    for name, value in given.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((key, part) for key, part in value.items() if isinstance(part, Tensor))
        elif isinstance(value, (tuple, list)):
            yield from ((name, part) for part in value if isinstance(part, Tensor))
