"""Which steps of sequences are real and which padding, as a model is seen to read them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from touchstone.nets.recurrent import Recurrent


@dataclass(frozen=True)
class RecurrentCall:
    """What a recurrent net was called with.

    Attributes:
        x: inputs, `(B, T, D)`.
        state: the state before the first step, in the form of the net; None for zeros.
        lengths: how many steps of each sequence count, int64 `(B,)`; None for all.
    """

    x: Tensor
    state: Tensor | tuple[Tensor, ...] | None
    lengths: Tensor | None

    @classmethod
    def read(cls, net: Recurrent, args: Sequence[Any], kwargs: Mapping[str, Any]) -> RecurrentCall:
        """The call of these arguments, by place or by name, packed or not."""
        given = inspect.signature(net.forward).bind(*args, **kwargs).arguments
        x, lengths = given["x"], given.get("lengths")
        if isinstance(x, PackedSequence):
            x, lengths = pad_packed_sequence(x, batch_first=True)
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=x.device).long()
        return cls(x, given.get("state"), lengths)

    def take(self, rows: Tensor, lengths: Tensor) -> RecurrentCall:
        """The call for some of the sequences, with lengths `(B,)`, in tensors of its own."""
        state = self.state
        if isinstance(state, Tensor):
            state = state[:, rows].detach()
        elif state is not None:
            state = tuple(part[:, rows].detach() for part in state)
        return RecurrentCall(self.x[rows].detach(), state, lengths[rows])


class RealSteps:
    """Watches what a model reads, from when it is made until `let_go`.

    Padding is what an `nn.Embedding` with a `padding_idx` takes for it, and what stands behind the `lengths` of a
    recurrent net. While a recurrent net reads what the embedding gave from its end, padding stands in front. Steps that
    a model moves in another way, or in vectors that are no longer the embedding's, are taken to be where they were.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._mask: Tensor | None = None
        self._padding: Tensor | None = None  # as the embedding gives it, `(D,)`
        self._turned_from: Tensor | None = None
        self._handles = []
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                self._handles.append(module.register_forward_pre_hook(self._see_tokens, with_kwargs=True))
            elif isinstance(module, Recurrent):
                self._handles.append(module.register_forward_pre_hook(self._see_call, with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._see_end))

    def of(self, values: Tensor) -> Tensor | None:
        """Which steps of `(B, T, ...)` are real: bool `(B, T)`; None where the model has said nothing of so many."""
        return self._mask if self._mask is not None and self._mask.shape == values.shape[:2] else None

    def let_go(self) -> None:
        """Watches no more."""
        for handle in self._handles:
            handle.remove()

    def _see_tokens(self, embedding: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs["input"]
        if tokens.ndim == 2:
            self._mask = tokens != embedding.padding_idx
            self._padding = embedding.weight[embedding.padding_idx].detach()
            self._turned_from = None  # an interrupted call may have left one

    def _see_call(self, net: Recurrent, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = RecurrentCall.read(net, args, kwargs)
        if call.lengths is not None:
            self._mask = torch.arange(call.x.shape[1], device=call.x.device) < call.lengths[:, None]
        elif self._mask is not None and self._is_turned(call.x):
            self._mask, self._turned_from = self._mask.flip(1), self._mask

    def _see_end(self, net: Recurrent, args: tuple[Any, ...], output: Any) -> None:
        if self._turned_from is not None:
            self._mask, self._turned_from = self._turned_from, None

    def _is_turned(self, x: Tensor) -> bool:
        """Whether in `x`, `(B, T, D)`, padding stands where it does in texts read from their end, and only there."""
        mask = self.of(x)
        if mask is None or self._padding is None or x.shape[2:] != self._padding.shape:
            return False
        is_padding = (x == self._padding.to(x.dtype)).all(2)
        return bool((is_padding | mask.flip(1)).all() & ~(is_padding | mask).all())
