"""`published_state`: the tensors of a published checkpoint by name, of the state dict in it that is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .fill import first_of, is_needed

WRAPPERS = ("model", "state_dict", "net", "model_state_dict")
"""Keys of a checkpoint behind which the state dict is looked for."""
AROUND = ("module.", "_orig_mod.")
"""What `DataParallel`, and its like, and `torch.compile` put before every name."""
UNUSED = ("attacker.", "sub_block1.")
"""What no prediction needs: the copy of the net that robustness keeps for its attacker, and a block of TRADES that no
forward uses."""
COUNTER = "n_averaged"
"""Nor the counter of torch's `AveragedModel`."""
NUM_LISTED = 5  # keys that a message names


def published_state(stored: Any, net: nn.Module, key: str | None, call: str) -> dict[str, Tensor]:
    """The tensors by name, without those that no prediction needs.

    Args:
        stored: what the file holds.
        net: whose weights are looked for.
        key: behind which they lie, empty for no key; None for the only state dict that fits, alone or behind one of
            `WRAPPERS`.
        call: who asks, for messages.

    Raises:
        ValueError: there is no state dict there, or several fit, or one behind another key; the message names the keys
            that there are.
    """
    wanted = set(net.state_dict())
    places = {str(name): _tensors(value, wanted) for name, value in _items(stored)}
    places = {"": _tensors(stored, wanted), **places}
    places = {name: tensors for name, tensors in places.items() if tensors}
    if key is not None:
        if key not in places:
            raise ValueError(f"{call} must hold a state dict behind key={key!r}, got {_listed(places, stored)}")
        return places[key]
    fitting = [name for name, tensors in places.items() if _fits(tensors, wanted)]
    if len(fitting) > 1 and not all(_are_equal(places[name], places[fitting[0]]) for name in fitting[1:]):
        named = [name for name in fitting if name]
        alone, or_alone = ("", "") if named == fitting else ("alone and ", ", or key='' for those alone")
        raise ValueError(
            f"{call} holds the weights of this net several times, {alone}behind {first_of(named, NUM_LISTED)}: choose "
            f"by key=..., as key={named[0]!r}{or_alone}"
        )
    usual = (*WRAPPERS, "")
    found = [name for name in (*fitting, *usual) if name in usual and name in places]
    if not found:
        raise ValueError(
            f"{call} must hold a state dict, alone or behind one of {', '.join(WRAPPERS)}, or behind key=..., got "
            f"{_listed(places, stored)}"
        )
    if fitting and found[0] not in fitting:
        beside = f"behind {found[0]!r}" if found[0] else "behind no key"
        raise ValueError(
            f"{call} holds the weights of this net behind {fitting[0]!r}, and others {beside}: choose by "
            f"key={fitting[0]!r}"
        )
    return places[found[0]]


def _items(stored: Any) -> Iterable[tuple[Any, Any]]:
    return stored.items() if isinstance(stored, Mapping) else ()


def _tensors(stored: Any, wanted: set[str]) -> dict[str, Tensor]:
    """Those of a state dict that a prediction may need, without what those `AROUND` a net put before their names."""
    if not isinstance(stored, Mapping):
        return {}
    given = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
    around: str | None = ""
    while around is not None:
        given = {name.removeprefix(around): value for name, value in given.items()}
        if COUNTER not in wanted:
            given.pop(COUNTER, None)
        around = next((prefix for prefix in AROUND if _stands_around(prefix, given, wanted)), None)
    return {name: value for name, value in given.items() if not name.startswith(UNUSED)}


def _stands_around(prefix: str, given: Collection[str], wanted: set[str]) -> bool:
    """Whether it begins every name that is given, and none of the net's own."""
    begins = [name.startswith(prefix) for name in given]
    return bool(begins) and all(begins) and not any(name.startswith(prefix) for name in wanted)


def _fits(tensors: Mapping[str, Tensor], wanted: set[str]) -> bool:
    """Whether the names of the net are there, behind one prefix."""
    needed = [name for name in wanted if is_needed(name)]
    ends = [name.removesuffix(needed[0]) for name in tensors if name.endswith(needed[0])] if needed else []
    return any(all(prefix + name in tensors for name in needed) for prefix in ends)


def _are_equal(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether they are the same weights under the same names."""
    return tensors.keys() == others.keys() and all(
        own.dtype == other.dtype and torch.equal(own, other)
        for own, other in ((tensors[name], others[name]) for name in tensors)
    )


def _listed(places: Mapping[str, Any], stored: Any) -> str:
    """The first keys that there are, of those with tensors behind them where there are such."""
    if not isinstance(stored, Mapping):
        return f"a {type(stored).__name__}"
    if behind := [name for name in places if name]:
        return f"tensors behind {first_of(behind, NUM_LISTED)}"
    return f"the keys {first_of([*map(str, stored)], NUM_LISTED) or 'none'}"
