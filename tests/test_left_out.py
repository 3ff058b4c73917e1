"""What a validation has besides samples and labels is said, since measurements give a model the samples alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from touchstone.callbacks import GradientNorm, Probe, RobustAccuracy

from .lightning_programs import OrdinaryModule, trainer
from .measured_runs import ATTACKS, Confidence, Mapped


class Weighed(OrdinaryModule):
    """Takes a weight of every image, and may be given the labels; `ask` is how its validation calls it."""

    def __init__(self, ask: Any) -> None:
        super().__init__()
        self.ask = ask

    def forward(self, x: Tensor, weight: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        return self.net(x if weight is None else x * weight[:, None, None, None])

    def _loss(self, batch: Any) -> Tensor:
        logits = self.ask(self, batch)
        return F.cross_entropy(logits, batch["label"] if isinstance(batch, dict) else batch[-1])


def as_dict(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"image": x, "weight": torch.tensor(0.5), "label": y}


def said_of(folder: Path, module: Weighed, make: Any, *probes: Probe) -> list[str]:
    """The warnings of Touchstone in a validation, by several batches."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(folder, *probes).validate(module, DataLoader(Mapped(make), 10), verbose=False)
    assert not module._forward_pre_hooks
    return [str(warning.message) for warning in caught if "what is measured" in str(warning.message)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda module, batch: module(batch["image"], batch["weight"]),
        lambda module, batch: module(weight=batch["weight"], x=batch["image"], labels=batch["label"]),
    ],
)
def test_what_the_model_is_given_besides_the_samples_is_said_once(tmp_path: Path, ask: Any) -> None:
    keys = ("image", "label")
    probes = Confidence(batch_keys=keys), GradientNorm(batch_keys=keys), RobustAccuracy(ATTACKS, batch_keys=keys)
    (said,) = said_of(tmp_path, Weighed(ask), as_dict, *probes)
    assert "gives the model 'weight' besides 'x'" in said


@pytest.mark.parametrize(
    "ask",
    [
        lambda module, batch: module(batch["image"]),
        lambda module, batch: module(batch["image"], labels=batch["label"]),
    ],
)
def test_of_a_model_that_is_given_samples_and_perhaps_their_labels_nothing_is_said(tmp_path: Path, ask: Any) -> None:
    assert not said_of(tmp_path, Weighed(ask), as_dict, Confidence(batch_keys=("image", "label")))


def test_a_tuple_of_three_says_which_are_taken(tmp_path: Path) -> None:
    module = Weighed(lambda module, batch: module(batch[0]))
    (said,) = said_of(tmp_path, module, lambda x, y: (x, torch.tensor(2), y), Confidence())
    assert "a list of 3" in said
    assert "its second for their labels" in said


def test_what_a_tuple_of_three_has_for_labels_is_named_where_the_model_is_given_it(tmp_path: Path) -> None:
    module = Weighed(lambda module, batch: module(batch[0], batch[1].float()))
    said = said_of(tmp_path, module, lambda x, y: (x, torch.tensor(2), y), Confidence())
    assert len(said) == 2
    assert "gives the model 'weight' besides 'x'" in said[1]


def test_nothing_stays_in_a_module_whose_validation_breaks_off(tmp_path: Path) -> None:
    def ask(module: Weighed, batch: Any) -> Tensor:
        raise RuntimeError("broken")

    module = Weighed(ask)
    with pytest.raises(RuntimeError, match="broken"):
        said_of(tmp_path, module, as_dict, Confidence(batch_keys=("image", "label")))
    assert not module._forward_pre_hooks
