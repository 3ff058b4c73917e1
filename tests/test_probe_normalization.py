"""Batches that come normalized are measured in pixels all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.callbacks.parts.passes.normalized import NormalizedBatches
from touchstone.lightning_modules import Classifier
from touchstone.nets import Normalize

from .lightning_programs import OrdinaryModule, samples, trainer, val_loader
from .measured_runs import ATTACKS, Mapped, robust_of

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


class Denormalizing(OrdinaryModule):
    """A module whose net expects normalized images, as most people train theirs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * 0.25 + 0.5)


@pytest.mark.parametrize(
    "normalization",
    [
        (0.1307, 0.3081),  # as grey images are often written
        ([0.5], [0.0]),
        ([0.5, 0.5], [0.5]),
        ([], []),
        ([float("nan")], [0.5]),
        ([0.5], [0.5], [0.5]),
        ["mean", "std"],
        0.5,
    ],
)
def test_a_normalization_that_is_none_is_refused(normalization: Any) -> None:
    message = r"GradientNorm\(normalization=...\) must be mean and std.* as in \(\[0.1307\], \[0.3081\]\), std > 0"
    with pytest.raises(ValueError, match=message):
        GradientNorm(normalization=normalization)


@pytest.mark.parametrize(("num_channels", "num_given"), [(1, 3), (3, 2)])
def test_a_normalization_of_other_channels_than_the_images_have_is_refused(
    tmp_path: Path, num_channels: int, num_given: int
) -> None:
    """Grey images would become colours by broadcasting."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(4))
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.3] * num_given, [0.4] * num_given)))
    loader = DataLoader(TensorDataset(torch.rand(9, num_channels, 6, 6) - 0.5, torch.arange(9) % 4), 9)
    message = (
        rf"RobustAccuracy\(normalization=...\) has numbers for {num_given} channels, and the samples "
        rf"\(9, {num_channels}, 6, 6\) have {num_channels} along their second axis"
    )
    with pytest.raises(ValueError, match=message):
        run.validate(Classifier(net), loader, verbose=False)


def test_one_number_is_a_normalization_of_all_channels() -> None:
    x = torch.rand(9, 3, 6, 6)
    batches = NormalizedBatches(([0.3], [0.4]), "Mine")
    torch.testing.assert_close(batches.pixels((x - 0.3) / 0.4), x)


@pytest.mark.parametrize("shape", [(7,), (3, 9), (3, 4, 5), (3, 4, 5, 6), (3, 3, 5, 6)], ids=str)
@pytest.mark.parametrize("is_one_for_all", [False, True])
def test_channels_are_the_second_axis_of_batches_of_any_shape(shape: tuple[int, ...], is_one_for_all: bool) -> None:
    """Vectors, signals, images and films; of two, so that a channel may not be taken for a sample."""
    x, num = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)), 1 if is_one_for_all else shape[0]
    mean, std = torch.linspace(0.2, 0.8, num), torch.linspace(0.5, 0.1, num)
    of_channels = [part.view(num, *[1] * (len(shape) - 1)) for part in (mean, std)]
    normalized = (x - of_channels[0]) / of_channels[1]
    batches = NormalizedBatches((mean.tolist(), std.tolist()), "Mine")
    torch.testing.assert_close(batches.pixels(normalized), x)
    model = batches.of_pixels(nn.Identity(), x.device)
    torch.testing.assert_close(model(x), normalized)


def test_samples_without_channels_are_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match=r"the samples \(2,\) have none along their second axis"):
        NormalizedBatches(([0.3, 0.4], [0.4, 0.5]), "Mine").pixels(torch.rand(2))


def test_a_normalization_may_be_of_tensors() -> None:
    given = GradientNorm(normalization=(torch.tensor([0.5, 0.25]), torch.tensor([1, 2])))
    assert given.normalization == ((0.5, 0.25), (1.0, 2.0))


def test_normalized_batches_are_attacked_in_pixels(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS, num_images=0))
    plain.validate(OrdinaryModule(), val_loader(), verbose=False)
    callbacks = (
        RobustAccuracy(ATTACKS, normalization=([0.5], [0.25]), num_images=0),
        GradientNorm(normalization=([0.5], [0.25])),
    )
    normalized = trainer(tmp_path / "normalized", *callbacks)
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    normalized.validate(Denormalizing(), loader, verbose=False)
    assert robust_of(normalized) == robust_of(plain)


def test_pixels_with_the_option_are_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    with pytest.raises(ValueError, match="they are pixels already; leave the option out"):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize("place", [0, 20])
def test_a_bright_picture_alone_in_its_batch_may_be_normalized(tmp_path: Path, place: int) -> None:
    x, y = samples(21, seed=2).tensors
    x = x.clone()
    x[place] = 0.5 + 0.25 * x[place]  # normalized it lies in [0, 1], as pixels do
    sizes = [1, 20] if place == 0 else [20, 1]

    def loader(make: Any) -> DataLoader:
        parts = list(zip(make(x).split(sizes), y.split(sizes), strict=True))
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]

    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS, num_images=0))
    plain.validate(OrdinaryModule(), loader(lambda x: x), verbose=False)
    normalized = trainer(tmp_path / "normalized", RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    normalized.validate(Denormalizing(), loader(Normalize([0.5], [0.25])), verbose=False)
    assert robust_of(normalized) == robust_of(plain)


def test_pixels_of_a_second_loader_are_told_from_the_normalized_ones_of_the_first(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    first = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    with pytest.raises(ValueError, match="they are pixels already; leave the option out"):
        run.validate(Denormalizing(), [first, val_loader(4)], verbose=False)


def test_normalized_batches_without_the_option_are_an_error_that_names_it(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\].*`normalization=\(mean, std\)`"):
        run.validate(Denormalizing(), loader, verbose=False)


def test_a_normalization_that_does_not_fit_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.1], [0.5])))
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    message = r"RobustAccuracy\(normalization=...\) must be the mean.*got \(\(0.1,\), .* and values from -0.7"
    with pytest.raises(ValueError, match=message):
        run.validate(Denormalizing(), loader, verbose=False)
