"""Norms of matrices that are known by their products alone, against the singular values that they are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from touchstone.callbacks.parts.measures.operator_norm import operator_norms


def found_norms(matrices: Tensor, first: Tensor, num_iterations: int = 20) -> tuple[Tensor, int]:
    """The norm of each matrix `(N, S, S)` by itself, since several together wait for the slowest; and the products."""
    num_products, norms = 0, []

    for matrix, begin in zip(matrices, first, strict=True):

        def forwards(v: Tensor, matrix: Tensor = matrix) -> Tensor:
            nonlocal num_products
            num_products += 1
            return v @ matrix.T

        def back(u: Tensor, matrix: Tensor = matrix) -> Tensor:
            return u @ matrix

        norms.append(operator_norms(forwards, back, begin[None], num_iterations))
    return torch.cat(norms), num_products


def rotated(singular_values: list[float], num_matrices: int) -> tuple[Tensor, Tensor]:
    """Matrices with these singular values in random directions, and random vectors to begin with."""
    generator, size = torch.Generator().manual_seed(0), len(singular_values)
    left, right = torch.linalg.qr(torch.randn(2, num_matrices, size, size, generator=generator).double())[0]
    first = torch.randn(num_matrices, size, generator=generator).double()
    return left * torch.tensor(singular_values).double() @ right.mT, first


def test_a_norm_that_stands_still_at_a_smaller_singular_value_goes_on() -> None:
    matrices, first = rotated([1.0, 0.94, *(0.1 * 0.5**k for k in range(14))], 800)
    norms, num_products = found_norms(matrices, first)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-5, atol=0)
    assert num_products < 6.5 * len(matrices)


def test_a_space_that_is_exhausted_ends_the_iteration() -> None:
    matrices, first = rotated([3.0, 3.0, 3.0], 5)
    norms, num_products = found_norms(matrices, first)
    torch.testing.assert_close(norms, torch.full_like(norms, 3.0))
    assert num_products == len(matrices)
