"""Which steps of sequences are real and which padding, as a model is seen to read them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
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
    recurrent net, or behind the sequences that one of these or of torch's was given packed. While a recurrent net reads
    what the embedding gave from its end, padding stands in front. What stands time first, `(T, B)`, is told by its
    shape; where there are as many texts as steps, tokens still are, by those that the model was given. Steps that a
    model moves in another way, or in vectors that are no longer the embedding's, are taken to be where they were.
    """

    def __init__(self, model: nn.Module) -> None:
        self._mask: Tensor | None = None
        self._is_packed = False  # then any number of steps of padding may follow
        self._padding: Tensor | None = None  # as the embedding gives it, `(D,)`
        self._turned_from: Tensor | None = None
        self._given: Any = None
        self._handles = [model.register_forward_pre_hook(self._see_given)]
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                self._handles.append(module.register_forward_pre_hook(self._see_tokens, with_kwargs=True))
            elif isinstance(module, nn.RNNBase):
                self._handles.append(module.register_forward_pre_hook(self._see_packed, with_kwargs=True))
            elif isinstance(module, Recurrent):
                self._handles.append(module.register_forward_pre_hook(self._see_packed, with_kwargs=True))
                self._handles.append(module.register_forward_pre_hook(self._see_call, with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._see_end))

    def of(self, values: Tensor) -> Tensor | None:
        """Which steps of `(B, T, ...)` are real: bool `(B, T)`; None where the model has said nothing of so many."""
        if self._mask is None:
            return None
        num_texts, num_steps = self._mask.shape
        for is_time_first in (False, True):
            rows, steps = values.shape[1::-1] if is_time_first else values.shape[:2]
            if rows == num_texts and (steps == num_steps or steps > num_steps and self._is_packed):
                mask = F.pad(self._mask, (0, steps - num_steps))
                return mask.T if is_time_first else mask
        return None

    def let_go(self) -> None:
        """Watches no more."""
        for handle in self._handles:
            handle.remove()

    def _see_given(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self._given = args[0] if args and isinstance(args[0], Tensor) and args[0].ndim == 2 else None

    def _see_tokens(self, embedding: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs["input"]
        if tokens.ndim == 2:
            is_turned = isinstance(self._given, Tensor) and torch.equal(tokens, self._given.mT)
            self._mask, self._is_packed = (tokens.mT if is_turned else tokens) != embedding.padding_idx, False
            self._padding = embedding.weight[embedding.padding_idx].detach()
            self._turned_from = None  # an interrupted call may have left one

    def _see_packed(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for given in (*args, *kwargs.values()):
            if isinstance(given, PackedSequence):
                self._mask, self._is_packed = _up_to(pad_packed_sequence(given)[1].to(given.data.device)), True

    def _see_call(self, net: Recurrent, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = RecurrentCall.read(net, args, kwargs)
        if call.lengths is not None:
            before, self._mask = self._mask, _up_to(call.lengths, call.x.shape[1])
            # What was packed the net itself unpacks, and calls itself with.
            self._is_packed &= before is not None and torch.equal(before, self._mask)
        elif (mask := self.of(call.x)) is not None and self._is_turned(call.x, mask):
            self._mask, self._turned_from = mask.flip(1), self._mask

    def _see_end(self, net: Recurrent, args: tuple[Any, ...], output: Any) -> None:
        if self._turned_from is not None:
            self._mask, self._turned_from = self._turned_from, None

    def _is_turned(self, x: Tensor, mask: Tensor) -> bool:
        """Whether in `x`, `(B, T, D)`, padding stands where it does in texts read from their end, and only there."""
        if self._padding is None or x.shape[2:] != self._padding.shape:
            return False
        is_padding = (x == self._padding.to(x.dtype)).all(2)
        return bool((is_padding | mask.flip(1)).all() & ~(is_padding | mask).all())


def _up_to(lengths: Tensor, num_steps: int | None = None) -> Tensor:
    """Which steps are within lengths `(B,)`: bool `(B, T)`, T being the longest unless it is given."""
    num_steps = int(lengths.max()) if num_steps is None else num_steps
    return torch.arange(num_steps, device=lengths.device) < lengths[:, None]
