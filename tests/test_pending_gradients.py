"""Checkpoints between the batches of a step: what has been accumulated towards it is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from touchstone.attacks import FGSM, Linf
from touchstone.callbacks import ExactResume
from touchstone.lightning_modules import AWP, PGDAT, Classifier, Free, Strategy

from .lightning_programs import train_loader, trainer, val_loader, weights
from .oracles import small_net

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")  # a resumed run has a folder of its own

LINF = Linf(eps=0.03)


def fitted(folder: Path, strategy: Strategy | None = None, *, val_check_interval: int = 3, **options: Any) -> Any:
    """The weights after two epochs of five batches (of ten with `Free`), two a step; each validation is followed by a
    checkpoint, after three batches for the first time."""
    torch.manual_seed(0)
    every = ModelCheckpoint(dirpath=folder / "kept", filename="{step}", save_top_k=-1, save_on_train_epoch_end=False)
    module = Classifier(small_net(7), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), strategy=strategy)
    given = {"accumulate_grad_batches": 2, "val_check_interval": val_check_interval, "num_sanity_val_steps": 0}
    callbacks = [EMAWeightAveraging(decay=0.9), ExactResume(), every]
    run = trainer(folder, *callbacks, max_epochs=2, enable_checkpointing=True, **given)
    run.fit(module, train_loader(), val_loader(), weights_only=True, **options)
    return weights(module.net)


def checkpoint(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "kept" / f"step={step}.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "strategy", [Strategy, lambda: AWP(PGDAT(FGSM(threat=LINF))), lambda: Free(LINF, num_repeats=2)]
)
def test_a_training_goes_on_from_between_the_batches_of_a_step(
    strategy: Callable[[], Strategy], tmp_path: Path
) -> None:
    whole: dict[str, Tensor] = fitted(tmp_path / "whole", strategy())
    loops = checkpoint(tmp_path / "whole", 1)["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["current"]["completed"] == 3
    resumed = fitted(tmp_path / "resumed", strategy(), ckpt_path=tmp_path / "whole" / "kept" / "step=1.ckpt")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize(("val_check_interval", "step", "is_between"), [(3, 1, True), (4, 2, False), (5, 3, False)])
def test_gradients_are_kept_between_the_batches_of_a_step_alone(
    val_check_interval: int, step: int, is_between: bool, tmp_path: Path
) -> None:
    fitted(tmp_path, val_check_interval=val_check_interval)
    (kept,) = checkpoint(tmp_path, step)["touchstone/exact_resume"]["of_ranks"]
    assert bool(kept["gradients"]) == is_between
