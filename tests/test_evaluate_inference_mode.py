"""Models and tensors that were made in inference mode: which are measured, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import Square, evaluate

from .judged import LINF, PGD_5
from .oracles import small_net


def test_a_model_that_keeps_inference_tensors_is_told_what_to_do(x: Tensor) -> None:
    class Caching(nn.Module):
        scale: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.ones(1, 1, 1, 1) * 3
            return (x * self.scale).flatten(1)[:, :4]

    model = Caching()
    with torch.inference_mode():
        y = model(x).argmax(1)
        with pytest.raises(RuntimeError, match=r"attack 'pgd': .*use `Trainer\(inference_mode=False\)`"):
            evaluate(model, x, y, {"pgd": PGD_5})


def measure(model: nn.Module, x: Tensor, y: Tensor) -> object:
    return evaluate(model, x, y, {"pgd": PGD_5})


@pytest.mark.parametrize("run", [measure, PGD_5])
def test_a_model_whose_weights_were_made_in_inference_mode_is_refused_and_left_as_it_was(
    run: Callable[..., object], x: Tensor, y: Tensor
) -> None:
    with torch.inference_mode():
        model = small_net().train()
    message = (
        r"parameters, first 0.weight, were made in inference mode .*: make or load the model outside of `torch.inf"
    )
    for context in (nullcontext(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match=message):
            run(model, x, y)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_a_black_box_measures_frozen_weights_of_inference_mode(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attacks = {"square": Square(threat=LINF, num_queries=20)}
    with torch.inference_mode():
        model = small_net().requires_grad_(False)
    assert torch.equal(evaluate(model, x, y, attacks).worst_case, evaluate(net, x, y, attacks).worst_case)
    with pytest.raises(RuntimeError, match="of weights, make or load the model outside of that mode"):
        evaluate(model, x, y, {"pgd": PGD_5})
