"""What torch's core says of its operations, and how their arguments are filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

UNTAGGED = (
    *("hardswish", "prelu", "_prelu_kernel", "rrelu_with_noise"),
    *("native_dropout", "log_sigmoid_forward", "as_strided_"),
)
"""Operations element by element that torch does not mark as such; the last changes the layout in memory."""

CONSTANT = tuple(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")) + (
    *(f"new_{kind}" for kind in ("zeros", "ones", "empty", "full")),
)
"""Operations that look at the shape of a tensor alone."""


def is_element_by_element(func: Any) -> bool:
    """Whether each element of the output is made of those at its place."""
    name = func.overloadpacket.__name__
    return torch.Tag.pointwise in func.tags or bool({name, name.rstrip("_")} & set(UNTAGGED))


def shows_its_input(func: Any) -> bool:
    """Whether the output is another view of the memory of the first argument."""
    infos = (result.alias_info for result in func._schema.returns)
    return any(info is not None and not info.is_write for info in infos)


def beside_the_input(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The arguments on the meta device, constants of the net too; what is written into stays the tensor that it is."""
    written = [id(args[0]), id(kwargs.get("out"))] if func._schema.is_mutable else []
    return tree_map(
        lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) and id(leaf) not in written else leaf, (args, kwargs)
    )


def filled_in(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """All arguments of an operation in their order, with the defaults."""
    named = [argument for argument in func._schema.arguments[len(args) :] if argument.name != "out"]
    return [*args, *(kwargs.get(a.name, a.default_value if a.has_default_value() else None) for a in named)]
