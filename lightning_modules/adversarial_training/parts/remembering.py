"""`Remembering`: what a strategy keeps from batch to batch, in the checkpoint too."""

from __future__ import annotations

from torch import Tensor

from ..strategy import Strategy


class Remembering(Strategy):
    """A strategy whose `memory` is kept in the checkpoint; stands before another one among a class's bases.

    It is no buffer: averages of weights average buffers too, and its size may be that of a batch.

    Attributes:
        memory: tensors by name, which a subclass reads and replaces.
    """

    memory: dict[str, Tensor]

    def remember(self) -> None:
        """Called when `memory` has come from a checkpoint: acts on what it holds."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """The memory, for the state dict."""
        return dict(self.memory)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.memory = dict(state)
        self.remember()
