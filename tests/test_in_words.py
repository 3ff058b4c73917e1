"""What goes wrong in a measurement says whose it is, and blames a model only for what came out of its forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Attack, Universal
from touchstone.callbacks import Probe, RobustAccuracy
from touchstone.callbacks.parts.passes.in_words import explained, named
from touchstone.callbacks.parts.passes.measuring import measuring
from touchstone.callbacks.parts.passes.samples import Samples

from .lightning_programs import OrdinaryModule, train_loader, trainer, val_loader
from .measured_runs import LINF


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.num_calls = error, 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        raise self.error


class OwnError(ValueError):
    def __init__(self, code: int) -> None:
        super().__init__(code, "own")
        self.code = code


class Custom(Exception):
    pass


def some() -> Samples:
    return Samples(torch.rand(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64), torch.arange(3))


def test_an_error_of_the_measurement_itself_is_not_blamed_on_the_model() -> None:
    model = Raising(NotImplementedError())
    with pytest.raises(IndexError, match="^own$"), explained("Own", model, model, some()):
        raise IndexError("own")
    assert not model.num_calls


def test_one_of_the_forward_is_told_by_it_and_nothing_is_passed_again() -> None:
    model, samples = Raising(Custom("needs a mask")), some()
    vars(model.error)["__notes__"] = ["see the manual"]
    message = r"^Own: the model cannot be called with the samples alone, torch.float32 \(3, 1, 6, 6\): Custom: needs a"
    with (
        pytest.raises(ValueError, match=message) as caught,
        explained("Own", model, model, samples),
        measuring(model, samples) as (x, _),
    ):
        model(x)
    assert model.num_calls == 1
    assert caught.value.__cause__ is model.error
    assert caught.value.__notes__ == ["see the manual"]


def test_one_of_a_call_with_something_else_is_the_callers() -> None:
    model, samples = Raising(RuntimeError("shapes")), some()
    with pytest.raises(RuntimeError, match="^shapes$"), explained("Own", model, model, samples):
        model(samples.x.flatten(1))


def test_an_output_that_is_no_logits_is_no_error_of_the_forward() -> None:
    model, samples = nn.Identity(), some()
    model.register_forward_hook(lambda *_: (1, 2))
    with (
        pytest.raises(ValueError, match="^the model must return a tensor of logits"),
        explained("Own", model, model, samples),
        measuring(model, samples) as (x, _),
    ):
        model(x)


def test_an_error_of_a_class_of_its_own_stays_one_with_a_note_of_whose_it_is() -> None:
    model, samples = Raising(OwnError(7)), some()
    with pytest.raises(OwnError) as caught, named("Own"), named("Own"), explained("Own", model, model, samples):
        model(samples.x)
    assert caught.value is model.error
    assert caught.value.args == (7, "own")
    assert caught.value.__notes__ == ["(in Own)"]


@pytest.mark.parametrize(("given", "said"), [(("a",), ("Own: a",)), ((), ("Own: ",)), (("a", 3), ("Own: a", 3))])
def test_a_plain_one_keeps_all_but_the_beginning_of_its_message(given: Any, said: Any) -> None:
    error = ValueError(*given)
    with pytest.raises(ValueError) as caught, named("Own"), named("Own"):  # noqa: PT011
        raise error
    assert caught.value is error
    assert error.args == said


def test_what_goes_wrong_at_the_end_of_a_pass_is_named_too(tmp_path: Path) -> None:
    class Ending(Probe):
        def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
            pass

        def conclude(self, *rest: Any) -> None:
            raise ValueError("too late")

    with pytest.raises(ValueError, match="^Ending: too late"):
        trainer(tmp_path, Ending()).validate(OrdinaryModule(), val_loader(), verbose=False)


def test_what_goes_wrong_while_attacks_are_prepared_or_held_over_is_named_too(tmp_path: Path) -> None:
    class NotLearning(Universal):
        def learn(self, *rest: Any) -> Attack:  # type: ignore[override]
            raise ValueError("learns nothing")

    class Standing(PGD):
        def perturb(self, *rest: Any) -> Tensor:  # type: ignore[override]
            raise ValueError("does not move")

    for attack, message in ((NotLearning(threat=LINF), "learns nothing"), (Standing(threat=LINF), "does not move")):
        run = trainer(tmp_path, RobustAccuracy({"own": attack}, num_prepare_samples=4, batch_size=100), max_epochs=1)
        with pytest.raises(ValueError, match=f"^RobustAccuracy: attack 'own': .*{message}"):
            run.fit(OrdinaryModule(), train_loader(), val_loader())
