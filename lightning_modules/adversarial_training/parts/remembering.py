"""`Remembering`: what a strategy keeps from batch to batch, in the checkpoint too."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ..strategy import Strategy

_OF_A_STRATEGY = re.compile(r"(module\.)*strategy\.(.*\.)?_extra_state")
"""The name of a memory in the state dict of a classifier, or of an average of one."""


class Remembering(Strategy):
    """A strategy whose `memory` is kept in the checkpoint; stands before another one among a class's bases.

    It is no buffer: averages of weights average buffers too, and its size may be that of a batch. It is no part of the
    model either: a checkpoint of another strategy loads, and the memory begins anew (`without_memories`).

    Attributes:
        memory: tensors by name, which a subclass reads and replaces.
        always: the names that are in every memory of the subclass.
    """

    memory: dict[str, Tensor]
    always: ClassVar[frozenset[str]]

    def remember(self) -> None:
        """Called when `memory` has come from a checkpoint: acts on what it holds."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """The memory, for the state dict."""
        return dict(self.memory)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `get_extra_state` gave; not what another strategy did in this one's place."""
        if self.always <= state.keys():
            self.memory = dict(state)
            self.remember()
        else:
            _say_that_it_begins_anew(self)


def without_memories(module: nn.Module, keys: Any) -> None:
    """A hook after `load_state_dict` of a module with a `strategy`, which need not be that of the checkpoint.

    Warns of a memory that begins anew although the training may go on.
    """
    missing = [name for name in keys.missing_keys if _OF_A_STRATEGY.fullmatch(name)]
    for name in missing:
        _say_that_it_begins_anew(module.get_submodule(name[name.index("strategy.") :].rpartition(".")[0]))
    for names in (keys.missing_keys, keys.unexpected_keys):
        names[:] = [name for name in names if not _OF_A_STRATEGY.fullmatch(name)]


def _say_that_it_begins_anew(strategy: nn.Module) -> None:
    rank_zero_warn(
        f"{type(strategy).__name__} begins anew: the checkpoint is of another strategy, or of one in another place, "
        "which matters to a training that goes on"
    )
