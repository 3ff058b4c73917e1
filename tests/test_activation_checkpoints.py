"""Nets that compute activations twice by reentrant checkpoints, whose gradients torch gives by `.backward()` alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from touchstone.attacks import FAB, L2, PGD, DeepFool, Linf, SampleRng, Strongest, dream, evaluate, frozen_eval
from touchstone.attacks.core.checkpoints import checkpoints_not_reentrant
from touchstone.attacks.core.past_saturation import past_saturation
from touchstone.attacks.core.smooth_backward import smooth_backward
from touchstone.callbacks import GradientNorm, InputGradients, RobustAccuracy
from touchstone.lightning_modules import AWP, PGDAT
from touchstone.lightning_modules.adversarial_training import Criterion

from .judged import LINF, PGD_5
from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader, weights
from .oracles import images, own_labels, small_net

X = images(24)
Y = own_labels(small_net(), X)


class Twice(nn.Module):
    """A net whose layers behind the first lie in a reentrant checkpoint, or, for comparison, in none."""

    def __init__(self, net: nn.Sequential, *, checkpoints: bool = True) -> None:
        super().__init__()
        self.net, self.checkpoints = net, checkpoints

    def forward(self, x: Tensor) -> Tensor:
        first = self.net[0](x)
        return checkpoint(self.net[1:], first, use_reentrant=True) if self.checkpoints else self.net[1:](first)


@pytest.mark.parametrize(
    "attack",
    [PGD_5, FAB(threat=LINF, num_steps=3), DeepFool(threat=L2(eps=1.0)), Strongest(threat=LINF, max_passes=20)],
)
def test_attacks_work_as_on_the_net_without_checkpoints(attack: PGD) -> None:
    net = small_net()
    reports = [evaluate(model, X, Y, {"a": attack}, keep_adversarial=True) for model in (net, Twice(net))]
    assert reports[0].success["a"].any()
    torch.testing.assert_close(reports[1].x_adv["a"], reports[0].x_adv["a"])
    assert torch.equal(reports[0].robust["a"], reports[1].robust["a"])
    assert all(p.grad is None for p in net.parameters())


def test_gradients_of_input_and_weights_are_those_of_the_net_without_and_no_grad_is_written() -> None:
    net, leaf = small_net().double(), X.double().requires_grad_()
    wanted = [leaf, *net.parameters()]

    def gradients(model: nn.Module) -> list[Tensor]:
        with frozen_eval(model, freeze=False):
            return list(torch.autograd.grad(F.cross_entropy(model(leaf), Y), wanted))

    torch.testing.assert_close(gradients(Twice(net)), gradients(net.eval()))
    assert all(tensor.grad is None for tensor in wanted)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        torch.autograd.grad(Twice(net)(leaf).sum(), leaf)  # outside, torch's checkpoints are what they were


@pytest.mark.parametrize("mode", [smooth_backward, lambda: past_saturation(len(X))])
@pytest.mark.parametrize("unit", [nn.ReLU, nn.Tanh])
def test_what_is_computed_again_is_so_in_the_contexts_of_the_first_time(mode: Any, unit: type[nn.Module]) -> None:
    net, leaf = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), unit(), nn.Linear(20, 4)).double(), X.double() * 9
    leaf.requires_grad_()

    def gradient(model: nn.Module) -> Tensor:
        with frozen_eval(model):
            with mode():
                gain = model(leaf).square().sum()
            return torch.autograd.grad(gain, leaf)[0]

    torch.testing.assert_close(gradient(Twice(net)), gradient(net))


def test_torch_has_its_checkpoints_back_whatever_ends_first() -> None:
    one, other = checkpoints_not_reentrant(), checkpoints_not_reentrant()
    one.__enter__()
    other.__enter__()
    in_thread: list[bool] = []

    def look() -> None:
        leaf = X.clone().requires_grad_()
        try:
            torch.autograd.grad(Twice(small_net())(leaf).sum(), leaf)
        except RuntimeError as error:
            in_thread.append("use_reentrant" in str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert in_thread == [True]
    assert "apply" not in vars(CheckpointFunction)


@pytest.mark.parametrize("layer", ["net.0", "net.2", ""])
def test_a_layer_dreams_inside_a_checkpoint_too(layer: str) -> None:
    net = small_net()
    plain, twice = (
        dream(Twice(net, checkpoints=which), layer=layer, x=X[:3], num_steps=3, objective="mean")
        for which in (False, True)
    )
    torch.testing.assert_close(twice, plain)
    assert not torch.equal(plain, X[:3])


def test_the_weights_worst_nearby_are_those_of_the_net_without() -> None:
    ends = []
    for checkpoints in (False, True):
        model, strategy = Twice(small_net(), checkpoints=checkpoints), AWP(PGDAT(PGD(threat=Linf(eps=0.1))))
        torch.manual_seed(0)
        strategy.learn(model, X, Y, Criterion(), SampleRng.numbered(len(X))).loss.backward()
        strategy.after_backward(model)
        ends.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(ends[1], ends[0])


class OfTwice(OrdinaryModule):
    """Learns in the mode of evaluation, since what is computed twice in that of training moves statistics twice."""

    def __init__(self, *, checkpoints: bool) -> None:
        super().__init__()
        self.net = Twice(self.net, checkpoints=checkpoints)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.net.eval()
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # in the validation's own forwards
def test_a_fit_is_measured_as_that_of_the_net_without_and_is_the_same_with_monitors(tmp_path: Path) -> None:
    ends, runs = {}, {"plain": (False, True), "twice": (True, True), "unmeasured": (True, False)}
    for name, (checkpoints, is_measured) in runs.items():
        module = OfTwice(checkpoints=checkpoints)
        measuring = [GradientNorm(), InputGradients(), RobustAccuracy({"pgd": PGD_5})] if is_measured else []
        torch.manual_seed(3)
        trainer(tmp_path / name, *measuring, max_epochs=1).fit(module, train_loader(), val_loader())
        ends[name] = weights(module)
    assert all(torch.equal(ends["twice"][name], value) for name, value in ends["unmeasured"].items())
    for tag in ("grad_norm/val/input", "grad_norm/val/parameters", "val/robust_accuracy/pgd"):
        plain, twice = ([e.value for e in events(tmp_path / name).Scalars(tag)] for name in ("plain", "twice"))
        assert twice == pytest.approx(plain, rel=1e-4), tag
