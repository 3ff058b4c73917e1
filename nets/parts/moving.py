"""Rules for operations that move positions of the input, join dimensions or take them apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .dependence import Atoms, CutAxisError, NoRuleError, Seen, length
from .looking import See, known, looking
from .windows import flipped, gathered, rolled, shuffled, strided


def as_one_unit(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """For operations that take positions apart or put others beside them, after which there are no axes to follow."""
    parts = [seen for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and (seen := see(leaf)) is not None]
    return reduce(Seen.joined, (seen.as_one_unit([1] * output.ndim) for seen in parts)).as_one_unit(output.shape)


def is_no_axis(seen: Seen, dim: int) -> bool:
    """Whether a dimension has no positions of the input in it, as the channels."""
    return all(axis is None for axis, _ in seen.dims[dim])


def plain(sizes: Sequence[int]) -> tuple[Atoms, ...]:
    """Dimensions without positions of the input."""
    return tuple(((None, size),) for size in sizes)


def stack(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """One beside the other along a new dimension; the others stay the axes that they were, if all have the same."""
    dim = args[1] % output.ndim
    try:
        seen = reduce(Seen.joined, (each for each in map(see, args[0]) if each is not None))
    except NoRuleError:  # of different axes
        return as_one_unit(see, args, output)
    return Seen((*seen.dims[:dim], *plain([len(args[0])]), *seen.dims[dim:]), seen.sights)


def unbind(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """The parts along a dimension, which is gone; where it is an axis, there are no axes to follow any more."""
    x, dim = args
    seen, dim = known(see, x), dim % x.ndim
    if not is_no_axis(seen, dim):
        return as_one_unit(see, args, output)
    return Seen((*seen.dims[:dim], *seen.dims[dim + 1 :]), seen.sights)


def reshape(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Into another shape; where that cuts an axis into windows, there are no axes to follow any more."""
    try:
        return known(see, args[0]).reshaped(output.shape)
    except CutAxisError:  # into windows, as where attention is within these
        return as_one_unit(see, args, output)


def unsqueeze(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """A dimension of length 1 more; the others stay the axes that they were, those of length 1 too."""
    seen, dim = known(see, args[0]), args[1] % output.ndim
    return Seen((*seen.dims[:dim], ((None, 1),), *seen.dims[dim:]), seen.sights)


def squeeze(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Without dimensions of length 1, those that are named or all of them."""
    seen, given = known(see, args[0]), args[1] if len(args) > 1 else range(args[0].ndim)
    named = {dim % args[0].ndim for dim in ([given] if isinstance(given, int) else given)}
    left = (dim for number, dim in enumerate(seen.dims) if number not in named or length(dim) != 1)
    return Seen(tuple(left), seen.sights)


def flip(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """The other way round."""
    seen = known(see, args[0])
    for dim in args[1]:
        seen = seen.with_sight(dim, lambda sight: sight.through(flipped(len(sight))))
    return seen


def rot90(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Turned by quarters."""
    x, quarters, dims = args
    turned = flip(see, [x, ([], dims[1:], dims, dims[:1])[quarters % 4]], output)
    return transpose(lambda _: turned, [x, *dims], output) if quarters % 2 else turned


def roll(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Shifted in a circle."""
    x, shifts, dims = args
    seen = known(see, x)
    if not dims:  # the flattened tensor
        return as_one_unit(see, args, output)
    for shift, dim in zip(shifts, dims, strict=True):
        seen = seen.with_sight(dim, lambda sight, shift=shift: sight.through(rolled(len(sight), shift=shift)))  # type: ignore[misc]
    return seen


def pixel_shuffle(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Channels become positions."""
    x, factor = args
    windows = [lambda _, n=n: shuffled(n, factor=factor) for n in output.shape[-2:]]
    return looking(known(see, x), output, windows)


def pixel_unshuffle(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Positions become channels."""
    x, factor = args
    windows = [lambda _, n=n: strided(n, kernel=factor, stride=factor) for n in output.shape[-2:]]
    return looking(known(see, x), output, windows)


def index(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """By one tensor of places along one dimension, of an axis `(units)` or `(units, places of each)`."""
    x, places = args
    chosen = [dim for dim, each in enumerate(places) if each is not None]
    seen, place = known(see, x), places[chosen[0]]
    after = chosen[0] + 1
    if len(chosen) == 1 and see(place) is None and place.dtype != torch.bool and is_no_axis(seen, chosen[0]):
        return Seen((*seen.dims[: chosen[0]], *plain(place.shape), *seen.dims[after:]), seen.sights)
    is_known = see(place) is None and not place.is_meta and place.dtype != torch.bool
    if len(chosen) > 1 or not is_known or place.ndim not in (1, 2):
        return as_one_unit(see, args, output)
    window = gathered((place % x.shape[chosen[0]]).reshape(len(place), -1).tolist()) if len(place) else None
    if window is None or len(seen.dims[chosen[0]]) > 1:
        return as_one_unit(see, args, output)
    seen = seen.with_sight(chosen[0], lambda sight: sight.through(window))
    return Seen((*seen.dims[:after], *plain(place.shape[1:]), *seen.dims[after:]), seen.sights).with_channels(
        output.shape
    )


def index_select(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """The same, by places `(units)`."""
    x, dim, place = args
    return index(see, [x, [*[None] * (dim % x.ndim), place]], output)


def gather(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Along one dimension, places that the input may have chosen; along the others each unit is its own."""
    x, dim, place = args[:3]
    parts = [seen.mixed([dim % output.ndim], 1) for seen in (see(x), see(place)) if seen is not None]
    return reduce(Seen.joined, parts).with_channels(output.shape)


def permute(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Dimensions in another order."""
    seen = known(see, args[0])
    return Seen(tuple(seen.dims[dim] for dim in args[1]), seen.sights)


def transpose(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Two dimensions exchanged."""
    seen = known(see, args[0])
    first, second = (args[1], args[2]) if len(args) == 3 else (0, 1)
    dims = list(seen.dims)
    if len(dims) > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return Seen(tuple(dims), seen.sights)


def same(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """As it was, perhaps with other channels."""
    return known(see, args[0]).with_channels(output.shape)


def expand(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """Repeated along new dimensions, or those of length 1."""
    seen = known(see, args[0])
    dims = (((None, 1),),) * (output.ndim - len(seen.dims)) + seen.dims
    wide = tuple(((None, n),) if length(dim) == 1 else dim for dim, n in zip(dims, output.shape, strict=True))
    return Seen(wide, seen.sights)


def cat(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """One beside the other."""
    parts = [seen for seen in map(see, args[0]) if seen is not None]
    if any(axis is not None for seen in parts for axis, _ in seen.dims[args[1]]):
        return as_one_unit(see, args, output)  # positions lie beside something else, as a token for the class
    flat = [
        seen.with_channels([1 if d == args[1] % output.ndim else None for d in range(output.ndim)]) for seen in parts
    ]
    return reduce(Seen.joined, flat).with_channels(output.shape)
