"""`fill`: a net takes the weights of a state dict, all of them and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

COMMON = ("", "model.", "module.", "net.")
"""Prefixes that a state dict is compared with where it fits behind none."""
NUM_NAMED = 3  # keys that a message names of each kind


def fill(
    net: nn.Module, state: Mapping[str, Tensor], call: str, *, prefix: str | None = None, has_others: bool = False
) -> None:
    """Loads a state dict whose keys may all stand behind one prefix, as `net.`.

    Args:
        net: it takes the weights.
        state: tensors by name. Only counters of batches may be missing, which old files lack and no prediction needs.
        call: who asks, for messages.
        prefix: what stands before the names; None for the only text that makes them fit.
        has_others: whether keys without the prefix belong to something else.

    Raises:
        ValueError: the names, shapes or kinds of the tensors are not those of the net, or several prefixes would do;
            the message names the first keys.
    """
    wanted = net.state_dict()
    prefix = _prefix(set(wanted), list(state), call) if prefix is None else prefix
    named = {key: key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    given = {name: state[key] for key, name in named.items()}
    others = [] if has_others else [key for key in state if key not in named]
    missing = [key for key in wanted if key not in given and is_needed(key)]
    unexpected = [name for name in given if name not in wanted] + others
    misshapen = [
        f"{key} {tuple(given[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    mistyped = [
        f"{key} {given[key].dtype} for {value.dtype}"
        for key, value in wanted.items()
        if key in given and _kind(given[key]) != _kind(value)
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "mistyped": mistyped}
    if any(wrong.values()):
        parts = [f"{kind} {first_of(keys)}" for kind, keys in wrong.items() if keys]
        behind = f", behind {prefix!r}" if prefix else ""
        raise ValueError(f"{call} does not fit {type(net).__name__}{behind}: {'; '.join(parts)}")
    net.load_state_dict(given, strict=False)


def _prefix(wanted: set[str], given: Sequence[str], call: str) -> str:
    """What stands before the names of a net's weights."""
    needed = set(filter(is_needed, wanted))
    found: Counter[str] = Counter()
    for key in given:
        for place in (0, *(at + 1 for at, letter in enumerate(key) if letter == ".")):
            if key[place:] in needed:
                found[key[:place]] += 1
    fitting = [prefix for prefix, count in found.items() if count == len(needed)]
    if len(fitting) > 1:
        raise ValueError(
            f"{call} must hold the weights of one net, those behind {' and behind '.join(map(repr, fitting))} fit"
        )
    return fitting[0] if fitting else max(COMMON, key=lambda prefix: found[prefix])


def is_needed(key: str) -> bool:
    """Whether a prediction needs it: all but the counters of batches."""
    return not key.endswith("num_batches_tracked")


def first_of(keys: Sequence[str], number: int = NUM_NAMED) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - number} more" if len(keys) > number else ""
    return ", ".join(keys[:number]) + more


def _kind(value: Tensor) -> str:
    """Numbers of the same kind may differ in precision."""
    return "complex" if value.is_complex() else "real" if value.is_floating_point() else "whole"
