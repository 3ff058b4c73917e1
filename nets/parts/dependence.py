"""`Dependence`: follows which positions of the input every tensor of a forward pass depends on.

The net runs on the meta device, where a tensor has a shape and no values; each operation of torch's core passes by
here, and says by its rule what its output sees of its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .operations import CONSTANT, beside_the_input, filled_in, is_element_by_element, shows_its_input
from .sight import Sight

Atoms = tuple[tuple[int | None, int], ...]
"""What a dimension is made of, the slowest first: an axis of the input, or None for channels and the like, and a
length."""


class NoRuleError(Exception):
    """What an operation does with the axes of the input is not known; the message says which."""


class CutAxisError(NoRuleError):
    """An axis of the input is cut into parts."""


@dataclass(frozen=True)
class Seen:
    """What the elements of a tensor see of the input.

    Attributes:
        dims: what each dimension is made of.
        sights: for each axis of the input, what the units along it see; a single one where no dimension is this axis.
    """

    dims: tuple[Atoms, ...]
    sights: tuple[Sight, ...]

    @classmethod
    def of_input(cls, shape: Sequence[int]) -> Seen:
        """For an input `(N, C, ...)`."""
        plain = tuple(((None, size),) for size in shape[:2])
        axes = tuple(((axis, size),) for axis, size in enumerate(shape[2:]))
        return cls((*plain, *axes), tuple(Sight.of_input(size) for size in shape[2:]))

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the input that dimensions of the tensor still are."""
        return tuple(sorted(axis for atoms in self.dims for axis, _ in atoms if axis is not None))

    def with_sight(self, dim: int, change: Callable[[Sight], Sight]) -> Seen:
        """The same with another sight along a dimension that is an axis of the input; of others nothing is known."""
        axes = [axis for axis, _ in self.dims[dim] if axis is not None]
        if not axes:
            return self
        if len(self.dims[dim]) > 1:
            raise NoRuleError("it works along a dimension that is more than one axis of the input")
        sights, dims = list(self.sights), list(self.dims)
        sights[axes[0]] = change(sights[axes[0]])
        dims[dim] = ((axes[0], len(sights[axes[0]])),)
        return Seen(tuple(dims), tuple(sights))

    def with_channels(self, sizes: Sequence[int | None]) -> Seen:
        """The same, where the first dimensions have these lengths if they are no axes of the input; None as it is."""
        dims = list(self.dims)
        for dim, size in enumerate(sizes):
            if all(axis is None for axis, _ in dims[dim]):
                dims[dim] = dims[dim] if size is None else ((None, size),)
            elif size not in (None, length(dims[dim])):
                raise NoRuleError("it cuts an axis of the input into parts")
        return Seen(tuple(dims), self.sights)

    def mixed(self, dims: Iterable[int], size: int) -> Seen:
        """Along these dimensions, whatever lies there is mixed to new units."""
        chosen = set(dims)
        gone = {axis for dim in chosen for axis, _ in self.dims[dim]}
        left = {axis for dim, atoms in enumerate(self.dims) if dim not in chosen for axis, _ in atoms}
        sights = (
            sight.everywhere(len(sight) if axis in left else 1) if axis in gone else sight
            for axis, sight in enumerate(self.sights)
        )
        kept = (((None, size),) if dim in chosen else atoms for dim, atoms in enumerate(self.dims))
        return Seen(tuple(kept), tuple(sights))

    def shared(self, dims: Iterable[int]) -> Seen:
        """Along these dimensions every unit sees what all of them see, as in a softmax."""
        whole = {axis for dim in dims for axis, _ in self.dims[dim]}
        sights = (s.everywhere(len(s)) if axis in whole else s for axis, s in enumerate(self.sights))
        return Seen(self.dims, tuple(sights))

    def as_one_unit(self, shape: Sequence[int]) -> Seen:
        """A tensor of this shape whose dimensions are no axes any more: as a whole it sees what all units see."""
        return Seen(tuple(((None, size),) for size in shape), tuple(sight.everywhere() for sight in self.sights))

    def joined(self, other: Seen) -> Seen:
        """Two tensors combined element by element, with broadcasting."""
        num_dims = max(len(self.dims), len(other.dims))
        mine, theirs = (((((None, 1),),) * (num_dims - len(s.dims))) + s.dims for s in (self, other))
        dims = tuple(_broadcast(a, b) for a, b in zip(mine, theirs, strict=True))
        return Seen(dims, tuple(a.joined(b) for a, b in zip(self.sights, other.sights, strict=True)))

    def reshaped(self, shape: Sequence[int]) -> Seen:
        """The same elements in another shape, in the same order."""
        atoms = [atom for dim in self.dims for atom in dim if atom[1] != 1]
        dims: list[Atoms] = []
        for size in shape:
            taken: list[tuple[int | None, int]] = []
            while (left := size // length(taken)) > 1:
                if not atoms:
                    raise NoRuleError(f"it reshapes to {tuple(shape)}")
                axis, count = atoms.pop(0)
                if count > left:
                    if axis is not None or count % left:
                        raise CutAxisError("it cuts an axis of the input into parts")
                    atoms.insert(0, (None, count // left))
                    count = left
                taken.append((axis, count))
            dims.append(tuple(taken) or ((None, 1),))
        # A dimension of length 1 says no more which axis it was; its sight then holds for the whole tensor.
        return Seen(tuple(dims), self.sights)


def length(atoms: Iterable[tuple[int | None, int]]) -> int:
    """How long a dimension is that is made of these."""
    return math.prod(size for _, size in atoms)


def _broadcast(mine: Atoms, theirs: Atoms) -> Atoms:
    if length(mine) == 1:
        return theirs
    if length(theirs) == 1 or mine == theirs or all(axis is None for axis, _ in theirs):
        return mine
    if all(axis is None for axis, _ in mine):
        return theirs
    raise NoRuleError("it combines different axes of the input")


class Dependence(TorchDispatchMode):
    """While it is active, keeps for every tensor what it sees.

    Args:
        rules: what the output of an operation sees, by the operation's name: `rule(see, args, output)`.
        report: called with the name of every operation that has a rule, and with its output.
    """

    def __init__(self, rules: Mapping[str, Callable[..., Seen]], report: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.rules, self.report = rules, report
        self._seen: dict[int, tuple[Tensor, Seen]] = {}  # the tensors too, so that no address is used again
        self._values: dict[int, tuple[Tensor, Tensor]] = {}  # of whole numbers that were moved to the meta device
        self._views: dict[int, list[_View]] = {}  # by the tensor whose memory they show
        self._are_views: set[int] = set()

    def see(self, tensor: Any) -> Seen | None:
        """What a tensor sees; None for one that does not depend on the input."""
        found = self._seen.get(id(tensor))
        return found[1] if found else None

    def set(self, tensor: Tensor, seen: Seen) -> None:
        """Says what a tensor sees."""
        self._seen[id(tensor)] = (tensor, seen)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        seen = [found for found in map(self.see, inputs) if found is not None]
        name = func.overloadpacket.__name__
        # A mask that is an index keeps its values, which say how many places there are.
        given = (args, kwargs) if not seen or name == "index" else beside_the_input(func, args, kwargs)
        output = func(*given[0], **given[1])
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if shows_its_input(func):
            self._views.setdefault(id(inputs[0]), []).append(_View(inputs[0], func, args, kwargs, outputs))
            self._are_views.update(map(id, outputs))
        if not seen or name in CONSTANT:
            if name == "_to_copy" and output.is_meta and not output.is_floating_point() and not args[0].is_meta:
                self._values[id(output)] = (output, args[0])
            return output
        rule = self.rules.get(name)
        is_in_place = output is args[0] or output is kwargs.get("out", args)
        before = self.see(output) if is_in_place else None
        self._look(func, args, kwargs, outputs)
        # Views keep what they see where what is written in sees no more, as of an activation.
        if is_in_place and (rule is not None or self.see(output) != before):
            if rule is not None or output._is_view() or id(output) in self._are_views:
                raise NoRuleError(f"{name} writes into a part of a tensor")
            self._look_again(output)
        if rule is not None and outputs:
            self.report(name, outputs[0])
        return output

    def _look(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Sequence[Tensor]) -> None:
        """Says what the outputs of an operation see, by what its arguments do."""
        name = func.overloadpacket.__name__
        rule = self.rules.get(name)
        for tensor in outputs:
            try:
                if rule is not None:
                    result = rule(self.see, self._with_values(filled_in(func, args, kwargs)), tensor)
                elif is_element_by_element(func):
                    result = reduce(Seen.joined, filter(None, map(self.see, tree_leaves((args, kwargs)))))
                else:
                    raise NoRuleError("of it nothing is known")
            except NoRuleError as error:
                raise NoRuleError(f"{name}: {error}") from None
            if [length(atoms) for atoms in result.dims] == list(tensor.shape):
                self.set(tensor, result)
            elif tensor is outputs[0]:  # the others are statistics, for a backward pass
                raise NoRuleError(f"{name}: the shape of what it puts out is not understood")

    def _look_again(self, written: Tensor) -> None:
        """The views of a tensor that has been written into see what it sees now."""
        for view in self._views.get(id(written), ()):
            self._look(view.func, view.args, view.kwargs, view.outputs)
            for output in view.outputs:
                self._look_again(output)

    def _with_values(self, args: Sequence[Any]) -> list[Any]:
        """The arguments, with lists of places by their values where these are known."""
        return [
            [self._values.get(id(place), (place, place))[1] for place in arg] if isinstance(arg, (list, tuple)) else arg
            for arg in args
        ]


@dataclass(frozen=True)
class _View:
    """How views of a tensor's memory were taken.

    Attributes:
        of: the tensor, kept, so that no address is used again.
        func, args, kwargs: the operation.
        outputs: the views.
    """

    of: Tensor
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[Tensor]
