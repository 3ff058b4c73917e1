"""`low_rank`: a net whose linear and convolutional layers are replaced by their best factors of low rank.

A weight matrix W = U S V^T of rank R is nearest, in the Frobenius and the spectral norm, to no matrix of rank r more
than to U_r S_r V_r^T, of its r largest singular values (Eckart and Young, "The approximation of one matrix by another
of lower rank", 1936); its error is the root of the sum of the squares of those left out. Two layers compute it, the
second after the first. Their factors are not unique: (A M, M^-1 B) has the same product for every invertible M. Of a
convolution, the matrix has a row for each channel that goes out and a column for each weight of its filter: then the
first layer is a convolution with r filters, and the second one of 1 x 1 (Zhang et al., "Accelerating very deep
convolutional networks for classification and detection", 2016, section 3.1, without their data).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from touchstone.options import check_between, check_counts, check_flags

from .parts.replace_layer import replace_layer


def low_rank(
    net: nn.Module, *, rank: int | None = None, energy: float | None = None, only_smaller: bool = True
) -> nn.Module:
    """A copy of a net with factored layers: each `nn.Linear`, and each `nn.Conv2d` without groups.

    The projections of `nn.MultiheadAttention` stay as they are: it reads their weights itself, so that factors would
    save it nothing. A layer that the net has under several names is one pair of layers under all of them.

    Args:
        net: it is left as it is.
        rank: of each layer, >= 1; a layer of no larger rank stays as it is.
        energy: in place of `rank`: the least share of the sum of squared singular values that each layer keeps,
            in (0, 1].
        only_smaller: whether a layer stays as it is where its factors would have as many parameters, or more.

    Raises:
        ValueError: not one of `rank` and `energy` is given, or it is outside its range.
    """
    if (rank is None) == (energy is None):
        raise ValueError(f"low_rank(rank=..., energy=...): give one of them, got {rank} and {energy}")
    if rank is not None:
        check_counts("low_rank", rank=rank)
    if energy is not None:
        check_between("low_rank(energy=...)", energy, 0, 1, "(]")
    check_flags("low_rank", only_smaller=only_smaller)
    net = copy.deepcopy(net)
    left_alone = {part.out_proj for part in net.modules() if isinstance(part, nn.MultiheadAttention)}
    pairs: dict[nn.Module, nn.Module] = {}
    for name, layer in list(net.named_modules(remove_duplicate=False)):
        if not isinstance(layer, (nn.Linear, nn.Conv2d)) or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
            continue
        if layer in left_alone:
            continue
        left, right = factors(layer.weight.detach().flatten(1), rank=rank, energy=energy)
        is_smaller = left.numel() + right.numel() < layer.weight.numel()
        if left.shape[1] < min(layer.weight.flatten(1).shape) and (is_smaller or not only_smaller):
            pair = pairs.setdefault(layer, _factored(layer, left, right))
            if not name:
                return pair
            replace_layer(net, name, pair)
    return net


def factors(weight: Tensor, *, rank: int | None = None, energy: float | None = None) -> tuple[Tensor, Tensor]:
    """The matrices A and B of which A B is nearest to a matrix among all of a rank.

    Args:
        weight: float `(m, n)`.
        rank: r, >= 1; at most min(m, n) is taken.
        energy: in place of it, the least share of the sum of squared singular values to keep, in (0, 1].

    Returns:
        `(m, r)` and `(r, n)`, each with the root of the singular values, so that neither is much larger.
    """
    u, s, vh = torch.linalg.svd(weight.cpu().double(), full_matrices=False)  # not every device has float64
    if energy is not None:
        kept = (s**2).cumsum(0)
        rank = int((kept < energy * kept[-1] * (1 - 1e-12)).sum()) + 1
    assert rank is not None
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(weight), (root[:, None] * vh[:rank]).to(weight)


class _Pair(nn.Sequential):
    """Two layers for one, the bias with the second; with the weight and bias of the one, for modules that read them."""

    @property
    def weight(self) -> Tensor:
        right, left = self[0].get_parameter("weight"), self[1].get_parameter("weight")
        return (left.flatten(1) @ right.flatten(1)).reshape(-1, *right.shape[1:])

    @property
    def bias(self) -> Tensor | None:
        bias = self[1].bias
        return bias if isinstance(bias, Tensor) else None


def _factored(layer: nn.Linear | nn.Conv2d, left: Tensor, right: Tensor) -> _Pair:
    rank, has_bias = left.shape[1], layer.bias is not None
    like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    first: nn.Linear | nn.Conv2d
    second: nn.Linear | nn.Conv2d
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False, **like)
        second = nn.Linear(rank, layer.out_features, bias=has_bias, **like)
    else:
        shape: dict[str, Any] = {
            name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")
        }
        size: Any = layer.kernel_size
        first = nn.Conv2d(layer.in_channels, rank, size, bias=False, **shape, **like)
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias, **like)
    with torch.no_grad():
        first.weight.copy_(right.reshape(first.weight.shape))
        second.weight.copy_(left.reshape(second.weight.shape))
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
    return _Pair(first, second).train(layer.training)
