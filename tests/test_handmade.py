"""Layers by hand against torch's own, and the net of them through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.nets import handmade

BOUNDARIES: list[handmade.Boundary] = ["zeros", "reflect", "circular"]


def gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    weights = torch.sin(torch.arange(output.numel(), dtype=output.dtype)).reshape(output.shape)
    return list(torch.autograd.grad((weights * output).sum(), inputs))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # of torch's layer
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 7])
def test_convolution_is_torchs(boundary: handmade.Boundary, kernel_size: int) -> None:
    mine = handmade.Conv1d(3, 5, kernel_size, boundary=boundary).double()
    theirs = nn.Conv1d(3, 5, kernel_size, padding="same", padding_mode=boundary).double()
    theirs.load_state_dict(mine.state_dict())
    x = torch.randn(4, 3, 11, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(mine(x), theirs(x), atol=1e-12)
    found = gradients(mine(x), x, mine.weight, mine.bias)
    expected = gradients(theirs(x), x, theirs.weight, theirs.bias)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))
    assert torch.allclose(mine.float()(x.float()), theirs.float()(x.float()), atol=1e-6)


def test_gradients_inside_autocast_are_those_outside() -> None:
    net, x = handmade.HandmadeNet(length=12).features, torch.randn(2, 1, 12, requires_grad=True)
    expected = gradients(net(x), x, *net.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(net(x), x, *net.parameters())
        bfloat16 = net(x.bfloat16())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert bfloat16.dtype == torch.float32


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("with_ties", [False, True])
def test_pooling_is_torchs_also_where_samples_are_equal(kernel_size: int, with_ties: bool) -> None:
    x = torch.randn(4, 3, 11, dtype=torch.float64)
    x = (x.round() if with_ties else x).requires_grad_()
    before = (kernel_size - 1) // 2
    padded = F.pad(x, (before, kernel_size - 1 - before), value=-torch.inf)
    found, expected = handmade.MaxPool1d(kernel_size)(x), F.max_pool1d(padded, kernel_size, stride=1)
    assert torch.equal(found, expected)
    assert torch.equal(*gradients(found, x), *gradients(expected, x))


def test_of_equals_the_first_has_the_gradient() -> None:
    x = torch.tensor([[[1.0, 1.0, 0.0, 1.0]]], requires_grad=True)
    (grad,) = torch.autograd.grad(handmade.MaxPool1d(3)(x).sum(), x)
    assert grad.tolist() == [[[2.0, 1.0, 0.0, 1.0]]]  # outputs 0, 1 by the first, 2 by the second, 3 by the last


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_are_those_of_finite_differences(boundary: handmade.Boundary) -> None:
    convolution, pool = handmade.Conv1d(2, 3, 4, boundary=boundary).double(), handmade.MaxPool1d(3)
    x = torch.randn(2, 2, 7, dtype=torch.float64, requires_grad=True)
    inputs = (x, convolution.weight, convolution.bias)
    assert torch.autograd.gradcheck(lambda x, w, b: handmade._Convolve.apply(x, w, b, boundary), inputs)
    assert torch.autograd.gradcheck(pool, (x,))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 1}]
)
def test_sgd_is_torchs(options: dict[str, Any]) -> None:
    mine, theirs = (nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64)) for _ in range(2))
    steps = handmade.SGD([mine], lr=0.1, **options), torch.optim.SGD([theirs], lr=0.1, **options)
    for _ in range(20):
        for parameter, optimizer in zip((mine, theirs), steps, strict=True):
            optimizer.zero_grad()
            (parameter.sin().sum() + parameter.pow(4).sum()).backward()
            optimizer.step()
    assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: handmade.Conv1d(1, 1, 0), r"Conv1d\(kernel_size=...\) must be >= 1, got 0"),
        (lambda: handmade.Conv1d(1, 1, 3, boundary="wrap"), "'zeros', 'reflect', 'circular', got 'wrap'"),
        (lambda: handmade.Conv1d(1, 1, 9, boundary="reflect")(torch.zeros(1, 1, 4)), "4 samples is too short"),
        (lambda: handmade.MaxPool1d(0), r"MaxPool1d\(kernel_size=...\) must be >= 1, got 0"),
        (lambda: handmade.SGD([nn.Parameter(torch.zeros(1))], lr=-1), "must be >= 0"),
        (lambda: handmade.SGD([nn.Parameter(torch.zeros(1))], momentum=1), r"must be in \[0, 1\)"),
        (lambda: handmade.Conv1d(0, 3, 3), r"in_channels=...\) must be >= 1, got 0"),
        (lambda: handmade.Conv1d(1, 0, 3), r"out_channels=...\) must be >= 1, got 0"),
        (lambda: handmade.Conv1d(1, 3, 3)(torch.rand(2, 4, 8)), r"takes signals \(N, 1, L\), got .* \(2, 4, 8\)"),
        (lambda: handmade.Conv1d(4, 3, 3)(torch.rand(2, 1, 8)), r"takes signals \(N, 4, L\), got .* \(2, 1, 8\)"),
        (lambda: handmade.Conv1d(1, 3, 3)(torch.rand(1, 8)), r"takes signals \(N, 1, L\), got .* \(1, 8\)"),
        (
            lambda: handmade.Conv1d(1, 3, 3)(torch.rand(1, 1, 8) + 1j),
            "Conv1d takes signals of real .* got torch.complex64",
        ),
        (lambda: handmade.MaxPool1d(3)(torch.rand(1, 1, 8) + 1j), "MaxPool1d takes signals of real .* torch.complex64"),
        (lambda: handmade.MaxPool1d(3)(torch.ones(1, 1, 8).long()), "MaxPool1d takes signals of real .* torch.int64"),
        (lambda: handmade.MaxPool1d(3)(torch.rand(1, 8)), r"takes signals \(N, C, L\), got .* \(1, 8\)"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_digits_as_signals_are_the_images_row_by_row() -> None:
    from touchstone.datamodules import DigitsDataModule

    images, signals = DigitsDataModule(), DigitsDataModule(read_as="signals")
    for data in (images, signals):
        data.setup("test")
    assert signals.test.tensors[0].shape == (300, 1, 64)
    assert torch.equal(signals.test.tensors[0][:, 0, 8:16], images.test.tensors[0][:, 0, 1])


@pytest.mark.slow
def test_the_config_reaches_ninety_percent(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train

    from .lightning_programs import events

    monkeypatch.chdir(tmp_path)
    assert train.main(["fit", "--config", str(root / "configs/handmade.yaml")]) == 0
    accuracy = events(tmp_path).Scalars("val/accuracy")[-1].value
    print(f"accuracy {accuracy:.1%}")
    assert accuracy >= 0.90
