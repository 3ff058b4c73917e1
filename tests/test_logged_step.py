"""Pictures and texts stand in TensorBoard at the step of the figures that they belong to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from touchstone.callbacks import RobustAccuracy

from .command_lines import TINY, write
from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader
from .measured_runs import ATTACKS


class TwoOptimizers(OrdinaryModule):
    """Each batch takes a step of both, so that Lightning's `global_step` counts it twice."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        first, second = self.optimizers()  # type: ignore[misc]
        for optimizer in (first, second):
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in (first, second):
            optimizer.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        weights, biases = ([p for p in self.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
        return torch.optim.SGD(weights, lr=0.01), torch.optim.SGD(biases, lr=0.01)


def steps_of(found: Any) -> tuple[list[int], list[int], list[int]]:
    """Those of a figure, a picture and a text of the same validations."""
    return (
        [event.step for event in found.Scalars("val/clean_accuracy")],
        [event.step for event in found.Images("attack/fgsm")],
        [event.step for event in found.Tensors("val/warnings/text_summary")],
    )


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
@pytest.mark.parametrize("module", [OrdinaryModule, TwoOptimizers])
def test_pictures_and_texts_of_a_validation_stand_at_the_step_of_its_figures(tmp_path: Path, module: Any) -> None:
    measuring = RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, num_images=1, images_every_n_epochs=1)
    trainer(tmp_path, measuring, val_check_interval=3).fit(module(), train_loader(), val_loader())
    figures, pictures, texts = steps_of(events(tmp_path))
    assert figures == texts
    assert len(pictures) == 2  # once an epoch
    assert set(pictures) <= set(figures)


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
def test_a_resumed_run_keeps_the_pictures_that_belong_to_its_checkpoint(run: Any, here: Path) -> None:
    config = copy.deepcopy(TINY)
    config["trainer"]["callbacks"][0]["init_args"] |= {"num_images": 1, "images_every_n_epochs": 1}
    config["trainer"]["callbacks"][1]["init_args"]["save_last"] = True
    for options in ([], ["--ckpt_path", "last", "--trainer.max_epochs", "2"]):
        assert run("fit", "--config", write(config), *options).code == 0
    assert steps_of(events(here)) == ([1, 3], [1, 3], [1, 3])
