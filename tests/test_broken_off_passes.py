"""A fit or an evaluation that broke off leaves nothing in the figures of the next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from touchstone.attacks import FGSM, PGD, Linf
from touchstone.callbacks import GradientNorm, PerClass, RobustAccuracy, RobustnessCurves, Saturation
from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM

from .lightning_programs import Loaders, trainer


def texts(folder: Path) -> pl.LightningDataModule:
    (folder / "text.txt").write_text("so it goes on and on, and then it ends\n" * 30)
    return TextDataModule(
        files=str(folder / "text.txt"),
        tokens="bytes",
        context=8,
        batch_size=4,
        steps_per_epoch=5,
        val_share=0.2,
        test_share=0.2,
        token_folder=str(folder),
    )


def still(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


PROGRAMS: dict[str, Callable[[Path], tuple[pl.LightningModule, pl.LightningDataModule]]] = {
    "classifier": lambda folder: (Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), still), Loaders()),
    "language model": lambda folder: (
        LanguageModel(RecurrentLM(256, cell="gru", dim=4, hidden=4), still, sample_tokens=0),
        texts(folder),
    ),
}
every_program = pytest.mark.parametrize("name", PROGRAMS)


class BreaksOff(pl.Callback):
    """After the second batch of whatever runs."""

    def _break_off(self, batch_idx: int) -> None:
        if batch_idx == 1:
            raise ZeroDivisionError

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._break_off(batch_idx)

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._break_off(batch_idx)

    on_test_batch_end = on_validation_batch_end


def run(folder: Path, what: str, module: Any, data: Any, *callbacks: pl.Callback, **options: Any) -> dict[str, float]:
    """The figures of one run; the order of the training data, and what else is drawn, is the same in each."""
    torch.manual_seed(0)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 3, "limit_test_batches": 3, **options}
    ran = trainer(folder, *callbacks, **options)
    getattr(ran, what)(module, datamodule=data)
    return {tag: float(value) for tag, value in ran.callback_metrics.items()}


def with_other_weights(module: nn.Module, std: float) -> None:
    """Draws its weights anew, the same at each call."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(1))


@every_program
@pytest.mark.parametrize("what", ["fit", "validate", "test"])
def test_a_pass_that_broke_off_is_in_no_later_figure(name: str, what: str, tmp_path: Path) -> None:
    module, data = PROGRAMS[name](tmp_path)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, what, module, data, BreaksOff())
    with_other_weights(module, std=0.3)
    after = run(tmp_path, what, module, data)
    assert after
    assert after == run(tmp_path, what, module, data)


@pytest.mark.parametrize(
    "make",
    [
        partial(GradientNorm, max_samples=None),
        Saturation,
        PerClass,
        partial(RobustAccuracy, {"fgsm": FGSM(threat=Linf(eps=0.1))}, num_images=0),
        partial(RobustnessCurves, attack=PGD(threat=Linf(eps=0.1), num_steps=2), eps=[0.1], steps=[2]),
    ],
    ids=["GradientNorm", "Saturation", "PerClass", "RobustAccuracy", "RobustnessCurves"],
)
def test_what_a_callback_took_in_before_a_pass_broke_off_is_in_none_of_its_figures(
    make: Callable[[], pl.Callback], tmp_path: Path
) -> None:
    layers = [nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4)]
    module, data, used = Classifier(nn.Sequential(*layers), still), Loaders(), make()
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "broken", "validate", module, data, used, BreaksOff())
    with_other_weights(module, std=1.0)
    expected = run(tmp_path / "new", "validate", module, data, make())
    assert len(expected) > 2
    assert run(tmp_path / "used", "validate", module, data, used) == pytest.approx(expected, rel=1e-6)


@every_program
@pytest.mark.parametrize("first", ["validate", "test"])
@pytest.mark.parametrize("then", ["fit", "validate"])
def test_what_ran_in_inference_mode_may_go_on_outside_it(name: str, first: str, then: str, tmp_path: Path) -> None:
    module, data = PROGRAMS[name](tmp_path)
    run(tmp_path, first, module, data)
    assert run(tmp_path, then, module, data, inference_mode=False)
