"""Programs whose figures cannot be measured are refused in the sanity check, by each callback, in words that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, PGD, Square, evaluate
from touchstone.callbacks import GradientNorm, InputGradients, PerClass, Probe, RobustAccuracy
from touchstone.callbacks.parts.passes.in_words import explained, named
from touchstone.callbacks.parts.passes.samples import Samples

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
}


def tried(name: str, module: nn.Module) -> None:
    """What a sanity check does with a probe, on images in four classes."""
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    samples = Samples(x[:10], y[:10], torch.arange(10))
    probe = PROBES[name]()
    if name == "RobustAccuracy":
        probe._set_up(probe.attacks, warm_start=False)
    with named(name), explained(name, module, module, samples):
        probe.try_out(module, samples)


@pytest.mark.parametrize("name", PROBES)
def test_the_sanity_check_of_a_fit_refuses_them(tmp_path: Path, name: str) -> None:
    message = rf"^{name}: the model must return .*a tuple of \(\d+, 4\) and \(\d+, 1, 6, 6\): let its forward return"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, PROBES[name]()).fit(Program(lambda net, x: (net(x), x)), val_loader(), val_loader())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program(lambda net, x: net(x)[:, :1]), r"got \(10, 1\).*of one logit z.*torch.stack"),
        (Program(lambda net, x: net(x)[:, 0]), r"got \(10,\).*of one logit z.*torch.stack"),
        (Program(lambda net, x: x), r"must return logits.*got \(10, 1, 6, 6\)"),
        (Program(lambda net, x: net(x)[:, :2]), "labels must be classes of the model, 0 to 1; sample id"),
        (WithoutForward(), "WithoutForward has no forward.*define `forward"),
        (OfTwoInputs(), r"must take the samples alone, got forward\(x.*'meta'"),
        (OfNames(), r"got forward\(\*\*inputs.*: let it take them by place"),
        (OfBatches(), r"cannot be called with the samples alone, torch.float32 \(10, 1, 6, 6\): "),
    ],
)
def test_a_model_that_gives_no_logits_of_samples(name: str, program: Program, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        tried(name, program)


@pytest.mark.parametrize("name", ["RobustAccuracy", "InputGradients"])
def test_features_that_were_computed_without_gradients(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*does not depend on its input by a differentiable path"):
        tried(name, Program(lambda net, x: net(x.detach())))


def test_a_black_box_needs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    square = {"square": Square(threat=LINF, num_queries=2)}
    monkeypatch.setitem(PROBES, "RobustAccuracy", lambda: RobustAccuracy(square))
    tried("RobustAccuracy", Program(lambda net, x: net(x.detach())))


@pytest.mark.parametrize("name", ["RobustAccuracy", "GradientNorm", "InputGradients"])
def test_probabilities(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: the model returned probabilities where logits are due"):
        tried(name, Program(lambda net, x: net(x).softmax(1)))


def test_a_measurement_of_ones_own_is_tried_out_in_the_sanity_check_and_none_of_it_kept(tmp_path: Path) -> None:
    class Share(Probe):
        sizes: list[int] = []

        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            self.sizes.append(len(x))
            return {"share": (model(x).argmax(1) == y).float()}

    module = OrdinaryModule()
    run = trainer(tmp_path, Share(max_samples=15), max_epochs=1)
    run.fit(module, val_loader(), val_loader())
    assert Share.sizes == [10, 10, 5]
    x, y = (part[:15] for part in val_loader().dataset.tensors)  # type: ignore[attr-defined]
    with torch.no_grad():
        right = (module.eval()(x).argmax(1) == y).float().mean()
    assert run.callback_metrics["val/share"] == right


def test_a_dict_with_logits_is_measured_as_the_logits_themselves() -> None:
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    program, attacks = Program(lambda net, x: {"logits": net(x), "features": x}), {"pgd": PGD(threat=LINF, num_steps=3)}
    alone, beside = evaluate(small_net(seed=7), x, y, attacks), evaluate(program, x, y, attacks)
    assert 0 < alone.robust["pgd"].sum() < len(x)
    assert torch.equal(alone.robust["pgd"], beside.robust["pgd"])
    for name in PROBES:
        tried(name, program)
