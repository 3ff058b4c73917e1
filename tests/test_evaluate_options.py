"""Options of attacks and objectives that are refused: outside their range, or not for this model or batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf, Margin, Targeted, Untargeted, evaluate

from .judged import LINF


@pytest.mark.parametrize("target", [4, torch.full((12,), 7)])
def test_a_target_class_that_does_not_exist_is_refused(net: nn.Module, x: Tensor, y: Tensor, target: Any) -> None:
    attack = PGD(threat=LINF, objective=Targeted(target=target))
    with pytest.raises(ValueError, match=r"attack 't': Targeted\(target=\d\): the model has 4 classes, 0 to 3"):
        evaluate(net, x, y, {"t": attack})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (-1, "must be >= 0, got -1"),
        (
            "runnerup",
            r"Targeted\(target=...\) must be one of 'random', 'least_likely', 'runner_up', got 'runnerup'; "
            "did you mean 'runner_up'.; a class is given by its number$",
        ),
        (1.5, "must be a class, a tensor of classes or a choice"),
        (torch.tensor([0.5]), "integers"),
    ],
)
def test_a_target_that_is_no_class_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Targeted(target=target)


@pytest.mark.parametrize("field", ["threat", "objective"])
def test_per_sample_values_must_fit_the_batch(net: nn.Module, x: Tensor, y: Tensor, field: str) -> None:
    values: dict[str, Any] = {
        "threat": Linf(eps=torch.full((5,), 0.1)),
        "objective": Targeted(target=torch.zeros(5).long()),
    }
    attack = PGD(**{"threat": LINF, field: values[field]})
    with pytest.raises(ValueError, match=r"must hold one row per sample \(12\) or a single one, got 5"):
        evaluate(net, x, y, {"a": attack})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, r"PGD\(num_steps=...\) must be >= 1, got 0"),
        ({"num_steps": 2.5}, r"PGD\(num_steps=...\) must be a whole number >= 1, got 2.5"),
        ({"num_steps": True}, r"PGD\(num_steps=...\) must be a whole number >= 1, got True"),
        ({"threat": 0.1}, r"PGD\(threat=...\) must be a threat such as Linf\(eps=8 / 255\), got 0.1"),
        ({"objective": 7}, r"PGD\(objective=...\) must be an objective such as Untargeted\(\)"),
        ({"num_eot_samples": 0}, r"PGD\(num_eot_samples=...\) must be >= 1, got 0"),
        ({"num_restarts": 0}, r"PGD\(num_restarts=...\) must be >= 1, got 0"),
        ({"step_size": 0}, r"PGD\(step_size=...\) must be > 0"),
        ({"step_size": "two"}, r"PGD\(step_size=...\) must be a number"),
        ({"rel_step_size": -1.0}, r"PGD\(rel_step_size=...\) must be > 0"),
        ({"step_size": 0.1, "rel_step_size": 0.1}, "give one of the two"),
        ({"random_start": "no"}, r"PGD\(random_start=...\) must be True or False, got 'no'"),
        ({"early_stop": 0}, r"PGD\(early_stop=...\) must be True or False, got 0"),
        ({"to_the_end": None}, r"PGD\(to_the_end=...\) must be True or False, got None"),
        ({"num_restarts": 2, "random_start": False}, "needs random_start=True"),
    ],
)
def test_pgd_refuses_values_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(**{"threat": LINF, **options})


@pytest.mark.parametrize("loss", [Margin, nn.CrossEntropyLoss()])
@pytest.mark.parametrize("make", [lambda loss: Untargeted(loss=loss), lambda loss: Targeted(1, loss=loss)])
def test_a_loss_that_is_none_is_refused(make: Callable[..., Any], loss: Any) -> None:
    with pytest.raises(ValueError, match=r"argeted\(loss=...\) must be a loss such as Margin\(\), got"):
        make(loss)
