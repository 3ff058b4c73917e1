"""`operator_norms`: the largest singular value by products alone, against torch's of the whole matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from touchstone.callbacks.parts.measures.operator_norm import operator_norms


def norms_of(matrices: Tensor, num_iterations: int = 20) -> Tensor:
    first = torch.randn(matrices.shape[0], matrices.shape[2], generator=torch.Generator().manual_seed(1)).double()
    return operator_norms(
        lambda v: (matrices @ v[..., None])[..., 0],
        lambda u: (matrices.mT @ u[..., None])[..., 0],
        first,
        num_iterations,
    )


@pytest.fixture
def matrices() -> Tensor:
    return torch.randn(5, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-280, 1e-30, 1.0, 1e30, 1e280])
def test_a_norm_is_right_however_large_or_small(matrices: Tensor, scale: float) -> None:
    expected = torch.linalg.matrix_norm(matrices, 2)
    assert torch.allclose(norms_of(scale * matrices) / scale, expected, rtol=1e-4)


def test_a_norm_is_approached_from_below(matrices: Tensor) -> None:
    expected, found = torch.linalg.matrix_norm(matrices, 2), [norms_of(matrices, number) for number in (1, 2, 5, 40)]
    above = [*found[1:], expected * (1 + 1e-12)]
    assert all(bool((less <= more).all()) for less, more in zip(found, above, strict=True))
    assert torch.allclose(found[-1], expected, rtol=1e-5)


@pytest.mark.parametrize("values", [[3.0] * 6, [3.0, 0, 0, 0, 0, 0], [3.0, 2.9, 1e-9, 1e-12, 0, 0]])
def test_matrices_whose_space_is_soon_exhausted_have_their_norm(values: list[float]) -> None:
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    found = norms_of((turned @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turned.T)[None])
    assert found.item() == pytest.approx(3.0, rel=1e-9)


def test_what_is_nothing_or_no_number_is_said_of_its_own_matrix_alone() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    found = norms_of(torch.stack([2 * eye, 0 * eye, eye * torch.nan, torch.full_like(eye, torch.inf)]))
    assert found[:2].tolist() == [2.0, 0.0]
    assert not found[2:].isfinite().any()
