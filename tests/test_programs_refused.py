"""Programs whose figures cannot be measured are refused in the sanity check, by each callback, in words that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, PGD, Square, Surrogate, Universal, evaluate
from touchstone.callbacks import (
    CatastrophicOverfitting,
    GradientNorm,
    InputGradients,
    PerClass,
    RobustAccuracy,
    RobustnessCurves,
)
from touchstone.callbacks.parts.passes.in_words import explained, named
from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.callbacks.parts.passes.try_out import TryOut

from .lightning_programs import OrdinaryModule, trainer, val_loader
from .measured_runs import LINF
from .oracles import small_net


class Program(OrdinaryModule):
    """Somebody's program: `give` is its forward, and what its loss makes of it does not matter here."""

    def __init__(self, give: Any = None) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(self.net, x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("trained on")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass


class WithoutForward(Program):
    forward = pl.LightningModule.forward


class OfTwoInputs(Program):
    def forward(self, x: Tensor, meta: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(x)


class OfNames(Program):
    def forward(self, **inputs: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(inputs["x"])


class OfBatches(Program):
    def forward(self, batch: Any) -> Tensor:
        return self.net(batch["image"])


PROBES: dict[str, Any] = {
    "RobustAccuracy": lambda: RobustAccuracy({"fgsm": FGSM(threat=LINF)}),
    "GradientNorm": GradientNorm,
    "PerClass": PerClass,
    "InputGradients": InputGradients,
    "RobustnessCurves": lambda: RobustnessCurves(attack=PGD(threat=LINF), eps=[0.1]),
    "CatastrophicOverfitting": lambda: CatastrophicOverfitting(LINF),
}
CLIMBING = ["RobustAccuracy", "InputGradients", "RobustnessCurves", "CatastrophicOverfitting"]


def tried(name: str, module: nn.Module, change_y: Any = lambda y: y) -> None:
    """What a sanity check does with a probe, on images in four classes."""
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    samples = Samples(x[:10], change_y(y[:10]), torch.arange(10))
    probe = PROBES[name]()
    if name == "RobustAccuracy":
        probe._set_up(probe.attacks, warm_start=False)
    with named(name), explained(name, module, module, samples):
        TryOut(probe).at_sanity_check(module, samples, 0)


@pytest.mark.parametrize("name", PROBES)
def test_the_sanity_check_of_a_fit_refuses_them(tmp_path: Path, name: str) -> None:
    message = rf"^{name}: the model must return .*a tuple of \(\d+, 4\) and \(\d+, 1, 6, 6\): let its forward return"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, PROBES[name]()).fit(Program(lambda net, x: (net(x), x)), val_loader(), val_loader())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program(lambda net, x: net(x)[:, :1]), r"got \(\d+, 1\).*of one logit z.*torch.stack"),
        (Program(lambda net, x: net(x)[:, 0]), r"got \(\d+,\).*of one logit z.*torch.stack"),
        (Program(lambda net, x: x), r"must return logits.*got \(\d+, 1, 6, 6\)"),
        (WithoutForward(), "WithoutForward has no forward.*define `forward"),
        (OfTwoInputs(), r"must take the samples alone, got forward\(x.*'meta'"),
        (OfNames(), r"got forward\(\*\*inputs.*: let it take them by place"),
        (OfBatches(), r"cannot be called with the samples alone, torch.float32 \(10, 1, 6, 6\): "),
    ],
)
def test_a_model_that_gives_no_logits_of_samples(name: str, program: Program, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        tried(name, program)


@pytest.mark.parametrize("name", [name for name in PROBES if name != "PerClass"])
def test_labels_that_are_no_classes(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*labels must be classes of the model, 0 to 1; sample"):
        tried(name, Program(lambda net, x: net(x)[:, :2]))


@pytest.mark.parametrize(("name", "label"), [("PerClass", 7), ("InputGradients", -100)])
def test_labels_that_are_none_and_are_no_hindrance(name: str, label: int) -> None:
    tried(name, Program(lambda net, x: net(x)), lambda y: y.where(torch.arange(10) > 2, label))


def test_labels_that_can_have_no_recall() -> None:
    with pytest.raises(ValueError, match="^PerClass: labels must be classes of the model, 0 to 3; sample id 0 .* -100"):
        tried("PerClass", Program(lambda net, x: net(x)), lambda y: y.where(torch.arange(10) > 2, -100))


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_that_were_computed_without_gradients(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*does not depend on its input by a differentiable path"):
        tried(name, Program(lambda net, x: net(x.detach())).to(dtype))


@pytest.mark.parametrize("freezes", [False, True])
def test_a_forward_without_any_gradient_has_no_norm_of_one(freezes: bool) -> None:
    program = Program(lambda net, x: net(x).detach())
    program.requires_grad_(not freezes)
    with pytest.raises(ValueError, match="^GradientNorm: the model's output has no gradient"):
        tried("GradientNorm", program)


@pytest.mark.parametrize(
    "attack", [Square(threat=LINF, num_queries=2), Surrogate(threat=LINF, net=small_net(3), num_queries=9)]
)
def test_a_black_box_needs_no_gradient(monkeypatch: pytest.MonkeyPatch, attack: Any) -> None:
    monkeypatch.setitem(PROBES, "RobustAccuracy", lambda: RobustAccuracy({"box": attack}))
    tried("RobustAccuracy", Program(lambda net, x: net(x.detach())))


def test_one_that_learns_by_gradients_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROBES, "RobustAccuracy", lambda: RobustAccuracy({"all": Universal(threat=LINF)}))
    with pytest.raises(ValueError, match="^RobustAccuracy: attack 'all': .* does not depend on its input"):
        tried("RobustAccuracy", Program(lambda net, x: net(x.detach())))


@pytest.mark.parametrize("name", [name for name in PROBES if name != "PerClass"])
def test_probabilities(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: the model returned probabilities where logits are due"):
        tried(name, Program(lambda net, x: net(x).softmax(1)))


@pytest.mark.parametrize("name", ["GradientNorm", "InputGradients"])
def test_a_forward_that_changes_its_input_in_place_is_measured_all_the_same(name: str) -> None:
    tried(name, Program(lambda net, x: net(x.sub_(0.5))))


def test_a_dict_with_logits_is_measured_as_the_logits_themselves() -> None:
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    program, attacks = Program(lambda net, x: {"logits": net(x), "features": x}), {"pgd": PGD(threat=LINF, num_steps=3)}
    alone, beside = evaluate(small_net(seed=7), x, y, attacks), evaluate(program, x, y, attacks)
    assert 0 < alone.robust["pgd"].sum() < len(x)
    assert torch.equal(alone.robust["pgd"], beside.robust["pgd"])
    for name in PROBES:
        tried(name, program)
