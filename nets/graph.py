"""`GraphNet`: a net as a graph: neurons joined by a weighted adjacency matrix, and gradients as sums over paths.

Neuron i computes `h_i = rho(a_i)`, `a_i = sum_j A_ij h_j + b_i`; an input neuron holds an input. Where the graph has no
cycle, the neurons can be computed one after another in topological order, and the derivative of neuron i by neuron j is
a sum over all paths from j to i of the product of `rho'(a_k) A_kl` along the path (Bauer, "Computational graphs and
rounding error", 1974). Where it has cycles, or neurons joined to themselves, it is a recurrent net:
`h(t + 1) = rho(A h(t) + b)`, run for T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from touchstone.options import check_choice, check_counts


def identity(a: Tensor) -> Tensor:
    """Rho of a linear net."""
    return a


RHO: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu, "identity": identity}


class GraphNet(nn.Module):
    """Neurons of which the first hold the input and the last are read out as they are, before rho.

    Args:
        adjacency: which neuron reads which, `(n, n)`: entry (i, j) for an edge from j to i. Bool, or the whole numbers
            0 and 1, for weights drawn at random; float for the initial weights, with an edge where one is not 0. Rows
            of input neurons must be empty.
        num_inputs: neurons that hold the input, >= 1.
        num_outputs: neurons that are read out, >= 1.
        nonlinearity: rho, `"tanh"`, `"relu"` or `"identity"`.
        num_steps: T, for a graph with cycles, >= 1; None for one without, which is computed in order.

    Raises:
        ValueError: a shape or an entry is wrong, an input neuron reads another, or there are cycles and no `num_steps`.

    Shape:
        float `(N, ...)` with `num_inputs` values each to logits `(N, num_outputs)`.
    """

    adjacency: Tensor

    def __init__(
        self,
        adjacency: Tensor | list[list[int]] | list[list[float]],
        *,
        num_inputs: int,
        num_outputs: int,
        nonlinearity: Literal["tanh", "relu", "identity"] = "tanh",
        num_steps: int | None = None,
    ) -> None:
        super().__init__()
        given = torch.as_tensor(adjacency)
        joined = given != 0
        if joined.ndim != 2 or joined.shape[0] != joined.shape[1]:
            raise ValueError(f"GraphNet(adjacency=...) must be a square matrix, got {tuple(joined.shape)}")
        _check_entries(given)
        num_neurons = len(joined)
        check_counts(self, num_inputs=num_inputs, num_outputs=num_outputs)
        if num_inputs + num_outputs > num_neurons:
            raise ValueError(
                f"GraphNet(num_inputs=..., num_outputs=...) must be >= 1 and together at most the {num_neurons} "
                f"neurons, got {num_inputs} and {num_outputs}"
            )
        if bool(joined[:num_inputs].any()):
            raise ValueError(f"GraphNet(adjacency=...): the first {num_inputs} rows, of the inputs, must be empty")
        check_choice("GraphNet(nonlinearity=...)", nonlinearity, tuple(RHO))
        check_counts(self, num_steps=num_steps, none_means="a graph without cycles")
        self.num_inputs, self.num_outputs, self.num_steps = num_inputs, num_outputs, num_steps
        self.rho = RHO[nonlinearity]
        self._set_order(joined)
        self.register_buffer("adjacency", joined)
        self.weight = nn.Parameter(torch.empty(num_neurons, num_neurons))
        self.bias = nn.Parameter(torch.zeros(num_neurons))
        if given.is_floating_point():
            self.weight.data.copy_(given)
            return
        for row, reads in zip(self.weight.data, joined, strict=True):
            nn.init.normal_(row, std=max(1, int(reads.sum())) ** -0.5)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Torch's, after the order of the graph that comes with the weights: one with cycles leaves this as it is."""
        joined = state_dict.get(f"{prefix}adjacency")
        if joined is not None and joined.shape == self.adjacency.shape:
            self._set_order(joined)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _set_order(self, joined: Tensor) -> None:
        """Finds the order in which neurons are computed."""
        order = topological_order(joined)
        if order is None and self.num_steps is None:
            raise ValueError("GraphNet(num_steps=...) must be given for a graph with cycles, got None")
        self.order = [neuron for neuron in order or () if neuron >= self.num_inputs]

    @property
    def edges(self) -> Tensor:
        """The weighted adjacency matrix A, `(n, n)`: the weights, 0 where there is no edge."""
        return self.weight * self.adjacency

    def forward(self, x: Tensor) -> Tensor:
        return self.sums(x)[:, len(self.weight) - self.num_outputs :]

    def sums(self, x: Tensor) -> Tensor:
        """What every neuron sums up, `a`, `(N, n)`; for input neurons, the input."""
        x = x.flatten(1)
        if x.shape[1] != self.num_inputs:
            raise ValueError(f"GraphNet: the input must have {self.num_inputs} values, got {x.shape[1]}")
        return self._in_order(x) if self.num_steps is None else self._in_steps(x, self.num_steps)

    def _in_order(self, x: Tensor) -> Tensor:
        edges, a = self.edges, dict(enumerate(x.unbind(1)))
        h = dict(a)
        for neuron in self.order:
            reads = self.adjacency[neuron].nonzero()[:, 0].tolist()
            a[neuron] = self.bias[neuron].expand(len(x))
            if reads:
                a[neuron] = torch.stack([h[other] for other in reads], 1) @ edges[neuron, reads] + self.bias[neuron]
            h[neuron] = self.rho(a[neuron])
        return torch.stack([a[neuron] for neuron in range(len(edges))], 1)

    def _in_steps(self, x: Tensor, num_steps: int) -> Tensor:
        edges, num_others = self.edges[self.num_inputs :], len(self.weight) - self.num_inputs
        others = x.new_zeros(len(x), num_others)
        for _ in range(num_steps):
            a = torch.cat([x, self.rho(others)], 1) @ edges.T + self.bias[self.num_inputs :]
            others = a
        return torch.cat([x, others], 1)


def _check_entries(adjacency: Tensor) -> None:
    if adjacency.is_floating_point():
        wrong, allowed = ~adjacency.isfinite(), "finite weights"
    else:
        wrong, allowed = (adjacency != 0) & (adjacency != 1), "0 and 1, or weights as floats"
    if bool(wrong.any()):
        i, j = wrong.nonzero()[0].tolist()
        raise ValueError(f"GraphNet(adjacency=...) must be {allowed}, got {adjacency[i, j].item()} at {(i, j)}")


def topological_order(adjacency: Tensor) -> list[int] | None:
    """The neurons so that each stands behind all that it reads; None where there is a cycle."""
    reads = {i: [j for j, edge in enumerate(row) if edge] for i, row in enumerate(adjacency.tolist())}
    try:
        return list(TopologicalSorter(reads).static_order())
    except CycleError:
        return None


def paths(adjacency: Tensor, source: int, target: int) -> list[tuple[int, ...]]:
    """Every path from one neuron to another, as the neurons along it.

    Raises:
        ValueError: one of them is not in 0 to n - 1, or the graph has cycles, and so paths without end.
    """
    _check_neurons("paths", adjacency, source=source, target=target)
    if topological_order(adjacency) is None:
        raise ValueError("paths: the graph must have no cycle")
    found: list[tuple[int, ...]] = []
    begun: list[tuple[int, ...]] = [(target,)]  # from their ends
    while begun:
        path = begun.pop()
        if path[0] == source:
            found.append(path)
        else:
            begun += [(before, *path) for before in adjacency[path[0]].nonzero()[:, 0].tolist()]
    return found


def gradient_by_paths(net: GraphNet, x: Tensor, source: int, target: int) -> Tensor:
    """The derivative of what neuron `target` sums up by what neuron `source` holds, as a sum over paths.

    Args:
        net: without cycles, computed in order.
        x: one input, `(num_inputs,)`.
        source: any neuron, 0 to n - 1.
        target: any neuron, 0 to n - 1.

    Returns:
        A number: the sum over the paths from source to target of the product of the weights along the path and of
        the slopes rho' of the neurons between.

    Raises:
        ValueError: the net is computed in steps, or there is no such neuron.
    """
    if net.num_steps is not None:
        raise ValueError(
            "gradient_by_paths: the net must have no cycle and be computed in order, GraphNet(num_steps=None), got "
            f"num_steps={net.num_steps}"
        )
    _check_neurons("gradient_by_paths", net.adjacency, source=source, target=target)
    sums = net.sums(x[None])[0].detach().requires_grad_()
    (slopes,) = torch.autograd.grad(net.rho(sums).sum(), sums)
    edges, total = net.edges.detach(), sums.new_zeros(())
    for path in paths(net.adjacency, source, target):
        product = sums.new_ones(())
        for before, after in zip(path, path[1:], strict=False):
            product = product * edges[after, before] * (1 if before == source else slopes[before])
        total = total + product
    return total


def weight_gradient_by_paths(net: GraphNet, x: Tensor, edge: tuple[int, int], target: int) -> Tensor:
    """The derivative of what neuron `target` sums up by the weight `A_ij` of an edge, as a sum over paths.

    Args:
        net: without cycles, computed in order.
        x: one input, `(num_inputs,)`.
        edge: (i, j), from neuron j to neuron i.
        target: any neuron, 0 to n - 1.

    Returns:
        A number: what j holds, times the slope of i and the sum over the paths from i on; what j holds alone where i is
        the target.

    Raises:
        ValueError: the net is computed in steps, or has no such edge or neuron.
    """
    i, j = edge
    _check_neurons("weight_gradient_by_paths", net.adjacency, target=target)
    if list(edge) not in net.adjacency.nonzero().tolist():
        raise ValueError(f"weight_gradient_by_paths(edge=...) must be an edge (i, j) of the graph, got {edge}")
    onward = gradient_by_paths(net, x, i, target)
    sums = net.sums(x[None])[0].detach().requires_grad_()
    held = net.rho(sums)
    (slopes,) = torch.autograd.grad(held.sum(), sums)
    of_j = sums[j] if j < net.num_inputs else held[j]
    return (of_j * (1 if i == target else slopes[i] * onward)).detach()


def _check_neurons(call: str, adjacency: Tensor, **given: int) -> None:
    for name, neuron in given.items():
        if not 0 <= neuron < len(adjacency):
            raise ValueError(f"{call}({name}=...) must be a neuron, 0 to {len(adjacency) - 1}, got {neuron}")
