"""In which epochs `RobustAccuracy` measures and draws, who waits for it, and what is said where it never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import RandomFlips, Surprise, TokenFlips
from touchstone.callbacks import GradientNorm, RobustAccuracy, RobustLanguage, Saturation

from .lightning_programs import OrdinaryModule, events, samples, train_loader, trainer, val_loader
from .measured_runs import ATTACKS

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


def test_attacks_every_n_epochs(tmp_path: Path) -> None:
    trainer(tmp_path, RobustAccuracy(ATTACKS, every_n_epochs=2, num_images=0), max_epochs=5).fit(
        OrdinaryModule(), train_loader(), val_loader()
    )
    steps = [event.step for event in events(tmp_path).Scalars("val/robust_accuracy/pgd")]
    assert steps == [9, 19]  # five steps an epoch: after the second and the fourth


def test_a_checkpoint_that_waits_for_fresh_figures_ranks_the_right_weights(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(
        dirpath=tmp_path / "kept", monitor="val/robust_accuracy/pgd", mode="max", every_n_epochs=2, save_top_k=-1,
        filename="{epoch}", auto_insert_metric_name=True,
    )  # fmt: skip
    trainer(
        tmp_path,
        RobustAccuracy(ATTACKS, every_n_epochs=2, num_images=0),
        checkpoint,
        enable_checkpointing=True,
        max_epochs=5,
    ).fit(OrdinaryModule(), train_loader(), val_loader())
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["epoch=1.ckpt", "epoch=3.ckpt"]


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_a_fit_without_validation_samples_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), max_epochs=1)
    with pytest.raises(UserWarning, match="RobustAccuracy will measure nothing: the validation has no samples"):
        run.fit(OrdinaryModule(), train_loader(), DataLoader(samples(0), 4))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_fit_without_a_validation_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, GradientNorm(), RobustAccuracy(ATTACKS), max_epochs=1)
    with pytest.raises(UserWarning, match="^RobustAccuracy will measure nothing: the training has no validation: give"):
        run.fit(OrdinaryModule(), train_loader())
    trainer(tmp_path, GradientNorm(), max_epochs=1).fit(OrdinaryModule(), train_loader())  # it measures the training
    switched_off = trainer(tmp_path, RobustAccuracy(ATTACKS), max_epochs=1, limit_val_batches=0)
    switched_off.fit(OrdinaryModule(), train_loader(), val_loader())


@pytest.mark.parametrize(
    ("every_n_epochs", "options", "reason"),
    [
        (3, {}, "that it measures is that of epoch 3, and the training has 2"),
        (2, {"check_val_every_n_epoch": 3, "max_epochs": 5}, "that of epoch 6, and the training has 5"),
        (2, {"check_val_every_n_epoch": 3, "max_epochs": 6}, None),
        (3, {"fast_dev_run": True}, None),
        (3, {"max_epochs": -1, "max_steps": 2}, "that of epoch 3, and the training has 1"),  # of 5 steps an epoch
        (3, {"max_epochs": 9, "max_steps": 10}, "that of epoch 3, and the training has 2"),
        (2, {"max_epochs": -1, "max_steps": 10}, None),
        (3, {"max_epochs": -1, "max_steps": 5, "accumulate_grad_batches": 3}, None),
    ],
)
def test_a_fit_that_ends_before_the_first_measurement_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    every_n_epochs: int,
    options: dict[str, Any],
    reason: str | None,
) -> None:
    run = trainer(
        tmp_path, GradientNorm(), RobustAccuracy(ATTACKS, every_n_epochs=every_n_epochs, num_images=0), **options
    )
    with caplog.at_level("INFO"):
        run.fit(OrdinaryModule(), train_loader(), val_loader())
    said = [record.message for record in caplog.records if "will measure nothing" in record.message]
    assert len(said) == (reason is not None)
    assert not said or (said[0].startswith("RobustAccuracy will measure nothing in this fit: ") and reason in said[0])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "fitting", "epochs"),
    [
        ({}, {"max_epochs": 12}, [1, 5, 10, 12]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, [2, 4]),
        ({"every_n_epochs": 3}, {"max_epochs": 14}, [3, 6, 12]),
        ({"every_n_epochs": 2}, {"max_epochs": 9, "check_val_every_n_epoch": 3}, [6]),
        ({"images_every_n_epochs": 2}, {"max_epochs": 5}, [1, 2, 4, 5]),
        ({"images_every_n_epochs": 99}, {"max_epochs": -1, "max_steps": 15}, [1]),
    ],
)
def test_pictures_are_drawn_at_the_first_and_the_last_measurement(
    tmp_path: Path, options: dict[str, Any], fitting: dict[str, Any], epochs: list[int]
) -> None:
    measuring = RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, num_images=1, **options)
    trainer(tmp_path, measuring, **fitting).fit(OrdinaryModule(), train_loader(), val_loader())
    assert [image.step for image in events(tmp_path).Images("attack/fgsm")] == [5 * epoch - 1 for epoch in epochs]


class WithLengths(OrdinaryModule):
    """A forward that no measurement can call, and no unit that saturates."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
        self.net(samples(1).tensors[0])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.net(x)

    def _loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[0], batch[1]), batch[1])


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {}])
@pytest.mark.filterwarnings("ignore:.*will measure nothing", "ignore:.*could not attack", "ignore:You defined a `val")
def test_a_fit_without_a_validation_is_refused_by_no_measurement(tmp_path: Path, options: dict[str, Any]) -> None:
    flips = RandomFlips(threat=TokenFlips(num_flips=1, vocab_size=3), objective=Surprise())
    callbacks = GradientNorm(), RobustAccuracy(attacks=ATTACKS), RobustLanguage(attacks={"flips": flips}), Saturation()
    validation = [val_loader()] if options else []
    for callback in callbacks:
        run = trainer(tmp_path, callback, max_epochs=1, limit_train_batches=1, **options)
        run.fit(WithLengths(), train_loader(), *validation)
        with pytest.raises(ValueError, match=r"must take the samples alone|has no tanh"):
            trainer(tmp_path, callback, max_epochs=1, num_sanity_val_steps=0).fit(
                WithLengths(), train_loader(), val_loader()
            )
