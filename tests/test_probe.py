"""A `Probe` of one's own: what `measure` returns, and under which tags."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from touchstone.callbacks import GradientNorm, Probe
from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.lightning_modules import Classifier

from .lightning_programs import OrdinaryModule, train_loader, trainer, val_loader
from .measured_runs import Confidence
from .oracles import small_net


def test_a_measurement_of_the_wrong_shape_names_itself(tmp_path: Path) -> None:
    class Mean(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"mean": x.mean()}

    with pytest.raises(ValueError, match=r"Mean.measure: 'mean' must have one value per sample, \(10,\), got \(\)"):
        trainer(tmp_path, Mean()).validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (lambda x: None, r"it must return values by name, such as .*, got None; does it end with `return`\?"),
        (lambda x: x.flatten(1).mean(1), "it must return values by name, such as .*, got a Tensor"),
        (lambda x: {3: x.flatten(1).mean(1)}, "the names of values must be texts, got 3"),
        (lambda x: {"a": 1.0}, r"'a' must be a tensor with one value per sample, \(10,\), got a float"),
        (lambda x: {"a": [1.0] * len(x)}, r"'a' must be a tensor with one value per sample, \(10,\), got a list"),
        (lambda x: {"a": torch.ones(len(x), dtype=torch.complex64)}, "'a' must be real numbers.*got torch.complex64"),
    ],
)
def test_whatever_else_is_returned_names_the_measurement(tmp_path: Path, returned: Any, problem: str) -> None:
    class Wrong(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:
            return returned(x)

    with pytest.raises(ValueError, match=f"Wrong.measure: {problem}"):
        trainer(tmp_path, Wrong()).validate(OrdinaryModule(), val_loader(), verbose=False)


def test_what_a_probe_keeps_on_its_own_is_one_value_per_sample_too(tmp_path: Path) -> None:
    class Seeing(Probe):
        def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
            self.keep(samples, {"a": samples.x.flatten(1)[:, :2]}, loader_index)

    with pytest.raises(ValueError, match=r"Seeing.measure: 'a' must have one value per sample, \(10,\), got \(10, 2\)"):
        trainer(tmp_path, Seeing()).validate(OrdinaryModule(), val_loader(), verbose=False)


def test_a_mean_that_is_nan_says_of_how_many_samples(tmp_path: Path) -> None:
    class Broken(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"a": torch.where(torch.arange(len(x)) == 0, torch.nan, 1.0)}

    run = trainer(tmp_path, Broken(), max_epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(OrdinaryModule(), train_loader(), val_loader())
    said = "Broken: 'a' is NaN for 3 of 23 samples, and so is the mean of all"
    assert [str(warning.message) for warning in caught].count(said) == 1
    assert run.callback_metrics["val/a"].isnan()


def test_a_probe_that_forgets_the_constructor_of_its_base_is_told(tmp_path: Path) -> None:
    class Forgetful(Confidence):
        def __init__(self) -> None:
            self.own = 3

    with pytest.raises(ValueError, match=r"Forgetful.__init__ must call super\(\).__init__\(\)"):
        trainer(tmp_path, Forgetful()).validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize("option", ["every_n_epochs", "max_samples"])
@pytest.mark.parametrize("value", [2.5, "10", True])
def test_options_of_every_probe_that_are_no_whole_numbers_are_refused(option: str, value: Any) -> None:
    message = rf"Confidence\({option}=...\) must be .*>= 1.* got {value!r}"
    with pytest.raises(ValueError, match=message):
        Confidence(**{option: value})


def test_a_measurement_whose_names_change_names_itself(tmp_path: Path) -> None:
    class Changing(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"full" if len(x) == 10 else "rest": x.flatten(1).mean(1)}

    message = r"Changing.measure: it must have the same names.*got \['full'\] and then \['rest'\]"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Changing()).validate(OrdinaryModule(), val_loader(10), verbose=False)


def test_two_callbacks_that_log_one_tag_are_an_error(tmp_path: Path) -> None:
    """Lightning would log the mean of both."""
    run = trainer(tmp_path, GradientNorm(max_samples=1), GradientNorm(max_samples=20))
    with pytest.raises(ValueError, match="two callbacks, GradientNorm and GradientNorm, log 'grad_norm/val/input'"):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize("num_loaders", [1, 2])
def test_a_figure_of_the_module_is_never_replaced(tmp_path: Path, num_loaders: int) -> None:
    """Weights would be ranked by a measurement that happens to have its name."""

    class Loss(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"loss": torch.full((len(x),), 123.0)}

    saving = ModelCheckpoint(tmp_path / "saved", monitor="val/loss" + "/dataloader_idx_0" * (num_loaders > 1))
    run = trainer(tmp_path, Loss(), saving, max_epochs=1, num_sanity_val_steps=0, enable_checkpointing=True)
    with pytest.raises(ValueError, match="Loss would log 'val/loss.*', which validation_step has logged"):
        run.fit(Classifier(small_net(7)), train_loader(), [val_loader() for _ in range(num_loaders)])
    assert not (tmp_path / "saved").exists()


def test_callbacks_with_tags_of_their_own_may_be_of_one_class(tmp_path: Path) -> None:
    class Named(Confidence):
        def __init__(self, name: str, **options: Any) -> None:
            super().__init__(**options)
            self.name = name

        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {self.name: super().measure(model, x, y)["confidence"]}

    run = trainer(tmp_path, Named("all"), Named("few", max_samples=1), max_epochs=3, val_check_interval=2)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    assert run.callback_metrics["val/all"] != run.callback_metrics["val/few"]
