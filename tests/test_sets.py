"""Sets are learnt through `Classifier`: handwritten digits as the pixels with ink, all of them or the 24 with most."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split

import train
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SetClassifier

from .lightning_programs import events, trainer


def digits_as_points() -> tuple[Tensor, Tensor]:
    """Of every inked pixel its ink, row and column (one-hot), in an order drawn for each digit: `(N, 48, 17)`."""
    images, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    places = torch.cat([torch.eye(8).repeat_interleave(8, 0), torch.eye(8).repeat(8, 1)], 1)  # (64, 16)
    generator, sets = torch.Generator().manual_seed(0), torch.zeros(len(y), 48, 17)
    for points, ink in zip(sets, images.float() / 16, strict=True):
        inked = ink.nonzero()[:, 0]
        inked = inked[torch.randperm(len(inked), generator=generator)]
        points[: len(inked)] = torch.cat([ink[:, None], places], 1)[inked]
    return sets, y


def test_digits_are_learnt_as_sets_of_points(tmp_path: Path) -> None:
    x, y = digits_as_points()
    sizes = (x != 0).any(2).sum(1)
    assert sizes.max() > 2 * sizes.min()
    split = [1400, len(y) - 1400]
    train, held_out = random_split(TensorDataset(x, y), split, torch.Generator().manual_seed(0))
    pl.seed_everything(0)
    net = SetClassifier(17, 10, dim=32, num_heads=2, num_blocks=1, zeros_pad=True)
    module = Classifier(net, lambda parameters: torch.optim.Adam(parameters, lr=1e-2))
    run = trainer(tmp_path, max_epochs=8)
    run.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(held_out, 397))
    assert float(run.callback_metrics["val/accuracy"]) > 0.9


def test_zeros_count_as_padding_where_they_are_said_to() -> None:
    torch.manual_seed(0)
    net, plain = (SetClassifier(3, 10, dim=8, zeros_pad=zeros_pad).double().eval() for zeros_pad in (True, False))
    plain.load_state_dict(net.state_dict())
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    padded = torch.cat([x, torch.zeros(4, 2, 3, dtype=torch.float64)], 1)
    torch.testing.assert_close(net(padded), plain(x))
    assert not torch.allclose(plain(padded), plain(x))
    none = torch.arange(7)[None].expand(4, -1) == 0
    torch.testing.assert_close(net(padded, none), plain(x[:, 1:]))


def test_digits_as_points_are_the_pixels_with_the_most_ink() -> None:
    images, sets = DigitsDataModule(), DigitsDataModule(read_as="points")
    for data in (images, sets):
        data.setup("test")
    points, ink = sets.test.tensors[0], images.test.tensors[0][:, 0]
    assert points.shape == (300, 24, 3)
    drawn = torch.zeros_like(ink)
    for image, of_image in zip(drawn, points, strict=True):
        row, column = (of_image[:, 1:] + 3.5).long().T
        image[row, column] = of_image[:, 0]
    left = (ink - drawn).flatten(1)  # what the points do not hold, none of it darker than what they do
    assert torch.equal(drawn, torch.where(drawn > 0, ink, 0))
    assert (left.amax(1) <= points[..., 0].amin(1)).all()
    assert (points[..., 0] > 0).sum() > 0.9 * points[..., 0].numel()


def test_what_a_digit_is_read_as_is_one_of_three() -> None:
    with pytest.raises(ValueError, match=r"read_as=...\) must be one of 'images', 'signals', 'points', got 'sets'"):
        DigitsDataModule(read_as="sets")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_config_learns_sets_that_fall_to_a_fifth_of_a_pixel(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["fit", "--config", str(root / "configs/sets.yaml")]) == 0
    clean, robust = (events(tmp_path).Scalars(f"val/{tag}")[-1].value for tag in ("accuracy", "robust_accuracy/pgd"))
    print(f"accuracy {clean:.1%}, after PGD {robust:.1%}")
    assert clean >= 0.9
    assert robust <= 0.05
