"""`published_state`: the tensors of a published checkpoint by name, of the state dict in it that is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .fill import is_needed

WRAPPERS = ("model", "state_dict", "net", "model_state_dict")
"""Keys of a checkpoint behind which the state dict is looked for."""
UNUSED = ("attacker.", "sub_block1.")
"""What no prediction needs: the copy of the net that robustness keeps for its attacker, and a block of TRADES that no
forward uses."""
COUNTER = "n_averaged"
"""Nor the counter of torch's `AveragedModel`."""


def published_state(stored: Any, net: nn.Module, key: str | None, call: str) -> dict[str, Tensor]:
    """The tensors by name, without those that no prediction needs.

    Args:
        stored: what the file holds.
        net: whose weights are looked for.
        key: behind which they lie; None for the only state dict that fits, alone or behind one of `WRAPPERS`.
        call: who asks, for messages.

    Raises:
        ValueError: there is no state dict there, or several fit; the message names the keys that there are.
    """
    wanted = set(net.state_dict())
    behind = {name: _tensors(value, wanted) for name, value in stored.items()} if isinstance(stored, Mapping) else {}
    behind = {str(name): tensors for name, tensors in behind.items() if tensors}
    if key is not None:
        if key not in behind:
            raise ValueError(f"{call} must hold a state dict behind key={key!r}, got {_listed(behind, stored)}")
        return behind[key]
    fitting = [name for name, tensors in behind.items() if _fits(tensors, wanted)]
    if len(fitting) > 1:
        raise ValueError(
            f"{call} holds the weights of this net several times, behind {', '.join(fitting)}: choose by key=..., as "
            f"key={fitting[0]!r}"
        )
    known = [name for name in WRAPPERS if name in behind]
    tensors = behind[known[0]] if known else _tensors(stored, wanted)
    if not tensors:
        raise ValueError(
            f"{call} must hold a state dict, alone or behind one of {', '.join(WRAPPERS)}, or behind key=..., got "
            f"{_listed(behind, stored)}"
        )
    return tensors


def _tensors(stored: Any, wanted: set[str]) -> dict[str, Tensor]:
    """Those of a state dict that a prediction may need, without what `DataParallel` puts before their names."""
    if not isinstance(stored, Mapping):
        return {}
    given = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
    if COUNTER not in wanted:
        given.pop(COUNTER, None)
    while given and all(name.startswith("module.") for name in given):
        given = {name.removeprefix("module."): value for name, value in given.items()}
    return {name: value for name, value in given.items() if not name.startswith(UNUSED)}


def _fits(tensors: Mapping[str, Tensor], wanted: set[str]) -> bool:
    """Whether the names of the net are there, behind one prefix."""
    needed = [name for name in wanted if is_needed(name)]
    ends = [name.removesuffix(needed[0]) for name in tensors if name.endswith(needed[0])] if needed else []
    return any(all(prefix + name in tensors for name in needed) for prefix in ends)


def _listed(behind: Mapping[str, Any], stored: Any) -> str:
    """The keys that there are, those with tensors behind them first."""
    if not isinstance(stored, Mapping):
        return f"a {type(stored).__name__}"
    if behind:
        return f"tensors behind {', '.join(behind)}"
    return f"the keys {', '.join(map(str, stored)) or 'none'}"
