"""What a validation has besides samples and labels is said, since measurements give a model the samples alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.callbacks import GradientNorm, Probe, RobustAccuracy

from .lightning_programs import OrdinaryModule, trainer
from .measured_runs import ATTACKS, Confidence, Mapped
from .oracles import images


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
        lambda module, batch: module(batch["image"], labels=batch["label"].float()[:, None]),
    ],
)
def test_of_a_model_that_is_given_samples_and_perhaps_their_labels_nothing_is_said(tmp_path: Path, ask: Any) -> None:
    assert not said_of(tmp_path, Weighed(ask), as_dict, Confidence(batch_keys=("image", "label")))


def test_a_tuple_of_three_says_which_are_taken(tmp_path: Path) -> None:
    module = Weighed(lambda module, batch: module(batch[0]))
    make = lambda x, y: (x, torch.tensor(2), y)  # noqa: E731
    (said,) = said_of(tmp_path, module, make, Confidence())
    assert "Confidence: the batch is a list of 3" in said
    assert "its second for their labels" in said
    assert not said_of(tmp_path, module, make, Confidence(batch_keys=(0, 2)))


def test_places_of_a_tuple_are_where_samples_and_labels_are_taken_from(tmp_path: Path) -> None:
    class Labels(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"label": y.float(), "ones": x.flatten(1).isfinite().all(1).float()}

    class Silent(OrdinaryModule):
        def validation_step(self, batch: Any, index: int) -> None:
            pass

    run = trainer(tmp_path, Labels(batch_keys=(2, 0)))
    run.validate(Silent(), DataLoader(Mapped(lambda x, y: (y, torch.tensor(2), x)), 10), verbose=False)
    expected = torch.stack([y for _, y in Mapped(lambda x, y: (x, y))]).float().mean()
    assert float(run.callback_metrics["val/label"]) == pytest.approx(float(expected))
    with pytest.raises(ValueError, match=r"batch_keys=\(0, 3\) must be .* places from 0 to 2, and the batch is a list"):
        said_of(tmp_path, Weighed(lambda m, b: m(b[0])), lambda x, y: (x, y, y), Labels(batch_keys=(0, 3)))


def test_the_module_is_looked_at_once_for_each_loader_and_not_where_callbacks_call_it(tmp_path: Path) -> None:
    hooked: list[int] = []

    class Calls(pl.Callback):
        def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            hooked.append(len(module._forward_pre_hooks))
            module(images(1), torch.ones(1))

        def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            hooked.append(len(module._forward_pre_hooks))

    module = Weighed(lambda module, batch: module(batch["image"]))
    probe = Confidence(batch_keys=("image", "label"))
    loaders = [DataLoader(Mapped(as_dict), 10) for _ in range(2)]
    trainer(tmp_path, probe, Calls()).validate(module, loaders, verbose=False)  # where a warning is an error
    num_batches = len(loaders[0])
    assert num_batches > 1
    assert hooked == 2 * [1, 0, *[0, 0] * (num_batches - 1)]


def test_nothing_stays_in_a_module_whose_validation_breaks_off(tmp_path: Path) -> None:
    def ask(module: Weighed, batch: Any) -> Tensor:
        raise RuntimeError("broken")

    module = Weighed(ask)
    with pytest.raises(RuntimeError, match="broken"):
        said_of(tmp_path, module, as_dict, Confidence(batch_keys=("image", "label")))
    assert not module._forward_pre_hooks
