"""The largest singular value of matrices that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm

_GROWTH = 1e-5
"""What grows by less than this share in an iteration stands still."""
_PATIENCE = 2
"""Iterations in a row of standing still, after which a norm has converged: one may stand still at a smaller singular
value, while the part of the vectors in the direction of the largest is yet to grow."""
_DEPENDENT = 1e-10
"""A unit vector of which so little is outside a space lies in it: the rest is rounding."""

Product = Callable[[Tensor], Tensor]


def operator_norms(forwards: Product, back: Product, first: Tensor, num_iterations: int) -> Tensor:
    """The norms of some matrices J, from below, by a power iteration on `J^T J` that keeps its vectors.

    Of all that the iteration has passed through (the Krylov space), the norm is that of J on an orthonormal basis: the
    method of Golub and Kahan, "Calculating the singular values and pseudo-inverse of a matrix", 1965. No vector is
    multiplied twice without being scaled to length 1 in between, so that norms may be as large and as small as floats.

    Args:
        forwards: `v -> J v` for one v per matrix, float64 `(B, S)`.
        back: `u -> J^T u`.
        first: where the iteration begins, `(B, S)`, not 0.
        num_iterations: the most products with J, >= 1; what has converged ends sooner.

    Returns:
        The norms, `(B,)`; NaN or infinite where a product was.
    """
    v = unit(first)
    basis, images, norms = v[:, None], first[:, None][:, :0], first.new_zeros(len(first))
    num_still = 0
    for number in range(num_iterations):
        image = forwards(v)
        images, before = torch.cat([images, image[:, None]], 1), norms
        norms = _norm_of_rows(images)
        grows = bool((norms > (1 + _GROWTH) * before).any())  # NaN does not
        num_still = 0 if grows else num_still + 1
        if number + 1 == num_iterations or num_still == _PATIENCE:
            break
        v = unit(back(unit(image)))
        for _ in range(2):  # once leaves rounding errors
            v = v - (basis.mT @ (basis @ v[..., None]))[..., 0]
        length = vector_norm(v, dim=1, keepdim=True)
        v = torch.where(length > _DEPENDENT, v / length, 0)
        if not bool(v.any()):
            break  # the basis spans all that there is to pass through
        basis = torch.cat([basis, v[:, None]], 1)
    return norms


def unit(v: Tensor) -> Tensor:
    """Vectors `(B, S)` scaled to length 1, and 0 where they are 0; their squares need not be floats."""
    v = v / v.abs().amax(1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    return v / vector_norm(v, dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)


def _norm_of_rows(rows: Tensor) -> Tensor:
    """The largest singular value of each matrix `(B, m, S)`, with m much smaller than S."""
    scale = rows.abs().amax((1, 2))
    is_number = scale.isfinite() & (scale > 0)
    scaled = torch.where(is_number[:, None, None], rows, 0) / torch.where(is_number, scale, 1)[:, None, None]
    largest = torch.linalg.eigvalsh(scaled @ scaled.mT)[:, -1].clamp(min=0).sqrt()
    return torch.where(is_number, scale * largest, scale)
