"""`RULES`: what the output of each operation of torch's core sees; those element by element need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial, reduce
from typing import Any

from torch import Tensor

from . import moving
from .dependence import NoRuleError, Seen
from .looking import Rule, See, known, looking
from .sight import Sight
from .windows import Window, adaptive, interpolated, nearest, padded, sliced, strided, transposed

# Operations that look through windows at the last dimensions.


def _each(values: Sequence[int], num: int, default: Sequence[int] = ()) -> Sequence[int]:
    """An option of torch with one number per axis: a single one is for all, none is the default."""
    values = list(values) or list(default)
    return values * num if len(values) == 1 else values


def _convolution(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    x, weight, _, stride, padding, dilation, is_transposed = args[:7]
    if see(weight) is not None:
        raise NoRuleError("its weights depend on the input")
    num, make = weight.ndim - 2, transposed if is_transposed else strided
    windows = [
        lambda _, n=n, k=k, s=s, p=p, d=d: make(n, kernel=k, stride=s, padding=p, dilation=d)
        for n, k, s, p, d in zip(
            output.shape[2:],
            weight.shape[2:],
            _each(stride, num),
            _each(padding, num),
            _each(dilation, num),
            strict=True,
        )
    ]
    return looking(known(see, x), output, windows)


def _pooling(num: int, see: See, args: Sequence[Any], output: Tensor, *, dilated: bool) -> Seen:
    kernel, dilation = _each(args[1], num), _each(args[4], num) if dilated else [1] * num
    stride = _each(args[2], num, kernel)
    windows = [
        lambda _, n=n, k=k, s=s, p=p, d=d: strided(n, kernel=k, stride=s, padding=p, dilation=d)
        for n, k, s, p, d in zip(output.shape[-num:], kernel, stride, _each(args[3], num), dilation, strict=True)
    ]
    return looking(known(see, args[0]), output, windows)


def _adaptive_pooling(num: int, see: See, args: Sequence[Any], output: Tensor) -> Seen:
    windows = [lambda below, n=n: adaptive(n, below) for n in output.shape[-num:]]
    return looking(known(see, args[0]), output, windows)


def _upsampling(num: int, reach: int, see: See, args: Sequence[Any], output: Tensor, *, exact: bool = False) -> Seen:
    """Nearest (reach 0, exact or not), linear (1) or cubic (2): by the scales that were given, or else by the sizes."""
    align_corners = bool(args[2]) if reach else False
    scales = args[3 if reach else 2 :]
    scales = scales[0] if scales and isinstance(scales[0], (list, tuple)) else scales

    def window(below: int, size: int, given: float | None) -> Window:
        scale = Fraction(size, below) if given is None else Fraction(given).limit_denominator(1000)
        if not reach:
            return nearest(size, scale, exact=exact)
        return interpolated(size, below, scale, reach=reach, align_corners=align_corners)

    given = [*scales, *([None] * num)][:num]
    windows = [partial(window, size=n, given=scale) for n, scale in zip(output.shape[-num:], given, strict=True)]
    return looking(known(see, args[0]), output, windows)


def _padding(mode: str, see: See, args: Sequence[Any], output: Tensor) -> Seen:
    befores = list(reversed(args[1][::2]))
    windows = [
        lambda below, n=n, before=before: padded(n, below, before=before, mode=mode)
        for n, before in zip(output.shape[-len(befores) :], befores, strict=True)
    ]
    return looking(known(see, args[0]), output, windows)


def _slice(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    x, dim, start, _, step = args
    size = x.shape[dim]
    start = 0 if start is None else min(max(start + size if start < 0 else start, 0), size)
    window = sliced(output.shape[dim], start=start, step=step)
    seen = known(see, x).with_sight(dim % x.ndim, lambda sight: sight.through(window))
    return seen.with_channels(output.shape)


def _select(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    x, dim, index = args
    dim %= x.ndim
    window = sliced(1, start=index % x.shape[dim])
    seen = known(see, x).with_sight(dim, lambda sight: sight.through(window))
    return Seen(seen.dims[:dim] + seen.dims[dim + 1 :], seen.sights)


# Operations that mix what lies along a dimension.


def _reduction(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    seen = known(see, args[0])
    wanted = args[1] if len(args) > 1 and args[1] is not None else ()
    chosen = [wanted] if isinstance(wanted, int) else list(wanted)
    dims = {dim % len(seen.dims) for dim in chosen} or set(range(len(seen.dims)))
    if output.ndim == len(seen.dims):  # what is left of an axis is still that axis
        return reduce(lambda kept, dim: kept.with_sight(dim, Sight.everywhere), dims, seen).with_channels(output.shape)
    mixed = seen.mixed(dims, 1)
    return Seen(tuple(dim for number, dim in enumerate(mixed.dims) if number not in dims), mixed.sights)


def _norm(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    return _reduction(see, [args[0], args[2]], output)


def _softmax(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    return known(see, args[0]).shared([args[1]])


def _layer_norm(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    seen = known(see, args[0])
    return seen.shared(range(len(seen.dims) - len(args[1]), len(seen.dims)))


def _group_norm(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    seen = known(see, args[0])
    return seen.shared(range(len(seen.dims)))


def _batch_norm(see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """By the statistics of the batch, of which instance normalisation makes use, or by running ones."""
    seen = known(see, args[0])
    return seen.shared(range(len(seen.dims))) if args[5] else seen


def _product(first: int, see: See, args: Sequence[Any], output: Tensor) -> Seen:
    """A matrix product; of the two factors, the last dimension of one and the last but one of the other are mixed."""
    left, right = see(args[first]), see(args[first + 1])
    if left is not None:
        mixed = left.mixed([len(left.dims) - 1], 1)
    if right is not None:
        other = right.mixed([len(right.dims) - 2], 1)
        mixed = other if left is None else mixed.joined(other)
    return mixed.with_channels(output.shape)


WINDOWED: Mapping[str, Rule] = {
    "convolution": _convolution,
    **{f"max_pool{n}d_with_indices": partial(_pooling, n, dilated=True) for n in (2, 3)},
    **{f"avg_pool{n}d": partial(_pooling, n, dilated=False) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": partial(_adaptive_pooling, n) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": partial(_adaptive_pooling, n) for n in (2, 3)},
    **{f"upsample_nearest{n}d": partial(_upsampling, n, 0) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": partial(_upsampling, n, 0, exact=True) for n in (1, 2, 3)},
    "upsample_linear1d": partial(_upsampling, 1, 1),
    "upsample_bilinear2d": partial(_upsampling, 2, 1),
    "upsample_trilinear3d": partial(_upsampling, 3, 1),
    "upsample_bicubic2d": partial(_upsampling, 2, 2),
}
"""Those that are layers in their own right, also where a forward calls them as functions."""

RULES: Mapping[str, Rule] = {
    **WINDOWED,
    "constant_pad_nd": partial(_padding, "constant"),
    **{f"reflection_pad{n}d": partial(_padding, "reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": partial(_padding, "replicate") for n in (1, 2, 3)},
    "flip": moving.flip,
    "rot90": moving.rot90,
    "roll": moving.roll,
    "pixel_shuffle": moving.pixel_shuffle,
    "pixel_unshuffle": moving.pixel_unshuffle,
    "index": moving.index,
    "index_select": moving.index_select,
    "im2col": moving.as_one_unit,
    "stack": moving.stack,
    "unbind": moving.unbind,
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), moving.reshape),
    "unsqueeze": moving.unsqueeze,
    "squeeze": moving.squeeze,
    "permute": moving.permute,
    **dict.fromkeys(("transpose", "t"), moving.transpose),
    **dict.fromkeys(
        ("clone", "_to_copy", "detach", "alias", "split", "unsafe_split", "split_with_sizes", "chunk"), moving.same
    ),
    **dict.fromkeys(("glu", "channel_shuffle"), moving.same),
    "gather": moving.gather,
    "expand": moving.expand,
    "cat": moving.cat,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "logsumexp"), _reduction),
    "linalg_vector_norm": _norm,
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _softmax),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": moving.same,
    **dict.fromkeys(("mm", "bmm"), partial(_product, 0)),
    **dict.fromkeys(("addmm", "baddbmm"), partial(_product, 1)),
}
