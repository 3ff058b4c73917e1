"""What `torch.export` gives is measured, as soon as its flags say that it is in evaluation mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import evaluate

from .judged import PGD_5


class Exported(nn.Module):
    """What `torch.export` gives: it refuses to change its mode, and says `training` whatever it was exported in."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def train(self, mode: bool = True) -> Exported:
        raise NotImplementedError("Calling train() is not supported yet.")


def test_an_exported_model_is_measured_once_its_flags_say_that_it_is_in_evaluation_mode(
    net: nn.Module, x: Tensor, y: Tensor
) -> None:
    expected = evaluate(net, x, y, {"pgd": PGD_5})
    exported = Exported(net.train())
    with pytest.raises(ValueError, match=r"while the model is in training mode .*export `model.eval\(\)`"):
        evaluate(exported, x, y, {"pgd": PGD_5})
    assert all(module.training for module in exported.modules())
    for module in exported.modules():
        module.training = False
    report = evaluate(exported, x, y, {"pgd": PGD_5})
    assert torch.equal(report.robust["pgd"], expected.robust["pgd"])
    assert not report.warnings


def test_a_model_that_holds_an_exported_one_is_measured(net: nn.Module, x: Tensor, y: Tensor) -> None:
    exported = Exported(net)
    for module in exported.modules():
        module.training = False
    model = nn.Sequential(exported, nn.Dropout())
    report, own = (evaluate(of, x, y, {"pgd": PGD_5}) for of in (model, net))
    assert torch.equal(report.robust["pgd"], own.robust["pgd"])
    assert model[1].training


def test_what_torch_exports_is_measured(net: nn.Module, x: Tensor, y: Tensor) -> None:
    some = {0: torch.export.Dim("n", min=1, max=1024)}
    exported = torch.export.export(net.eval(), (x,), dynamic_shapes=(some,)).module()
    for module in exported.modules():
        module.training = False
    robust = evaluate(net, x, y, {"pgd": PGD_5}).robust["pgd"]
    assert torch.equal(evaluate(exported, x, y, {"pgd": PGD_5}).robust["pgd"], robust)
