"""What is wrong with samples and model is said by `RobustAccuracy` before a training, or after its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import DLR, PGD, Targeted, Untargeted
from touchstone.callbacks import RobustAccuracy

from .lightning_programs import OrdinaryModule, samples, train_loader, trainer, val_loader
from .measured_runs import ATTACKS, LINF, wrong_batches

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: (255 * x, y), r"attack 'noise': images must lie in \[0, 1\]"),
        (lambda x, y: ((255 * x).byte(), y), "images must be floating point, got torch.uint8"),
        (lambda x, y: (x, y + 4), "labels must be classes of the model, 0 to 3"),
        (lambda x, y: (x, y.float()), "labels must be class numbers, int64"),
    ],
)
def test_what_is_wrong_with_the_samples_is_said_before_training(tmp_path: Path, make: Any, message: str) -> None:
    class Lenient(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.net(batch[0].float())

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("trained on")

    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(ValueError, match=message):
        run.fit(Lenient(), train_loader(), wrong_batches(make))


def test_logits_that_are_not_finite_are_said_with_the_positions_of_their_batch(tmp_path: Path) -> None:
    class Breaking(OrdinaryModule):
        def forward(self, x: Tensor) -> Tensor:
            broken = (x == val_loader().dataset.tensors[0][[18, 20]][:, None]).flatten(2).all(2).any(0)  # type: ignore[attr-defined]
            return self.net(x).masked_fill(broken[:, None], torch.nan)

    run = trainer(tmp_path, RobustAccuracy(ATTACKS, batch_size=10))
    with pytest.raises(ValueError, match=r"for 1 of 10 samples \(.* of samples 10 to 19, first sample id 18\)"):
        run.validate(Breaking(), val_loader(10), verbose=False)


def test_without_a_sanity_check_the_first_training_batch_is_looked_at(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), num_sanity_val_steps=0)
    message = (
        "could not attack the samples of a training batch, and validation samples like these will fail in the same "
        "way: attack 'noise': images must lie in"
    )
    with pytest.raises(UserWarning, match=message):  # made an error
        run.fit(OrdinaryModule(), wrong_batches(lambda x, y: (255 * x, y)), val_loader())


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
@pytest.mark.parametrize(
    ("function", "objective", "message"),
    [
        (lambda logits: logits, Targeted(target=12), r"attack 'pgd': Targeted\(target=12\): the model has 4 classes"),
        (lambda logits: logits[:, :2], Untargeted(loss=DLR()), r"attack 'pgd': DLR\(\) needs a model of 3 classes"),
        (lambda logits: (logits, logits), Untargeted(), "it returned a tuple of .*wrap it"),
        (lambda logits: logits[:, :1], Untargeted(), r"logits of shape \(\d+, classes\) with 2 classes or more, got"),
        (lambda logits: logits.softmax(1), Untargeted(), "probabilities where logits are due"),
    ],
)
def test_what_is_wrong_with_the_output_is_said_before_the_second_step(
    tmp_path: Path, function: Any, objective: Any, message: str, num_sanity_val_steps: int
) -> None:
    class Module(OrdinaryModule):
        def forward(self, x: Tensor) -> Any:
            return function(self.net(x))

        def _loss(self, batch: Any) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

    attack = PGD(threat=LINF, objective=objective)
    few = DataLoader(TensorDataset(*(part % 2 for part in samples(40).tensors)), 8)  # of two classes
    measuring = RobustAccuracy({"pgd": attack}, every_n_epochs=3)
    run = trainer(tmp_path, measuring, num_sanity_val_steps=num_sanity_val_steps, max_epochs=3)
    with pytest.raises(ValueError, match=message):
        run.fit(Module(), few, few)
    assert run.global_step == 1 - num_sanity_val_steps


def test_training_batches_of_another_kind_are_none_of_its_business(tmp_path: Path) -> None:
    class Unlabelled(OrdinaryModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(batch["views"]).square().mean()

    run = trainer(tmp_path, RobustAccuracy(ATTACKS), num_sanity_val_steps=0, max_epochs=1)
    run.fit(Unlabelled(), wrong_batches(lambda x, y: {"views": 3 * x}), val_loader())
