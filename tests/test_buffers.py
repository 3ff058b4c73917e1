"""Nets that change a buffer in evaluation mode: whoever looks at them leaves it as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import RandomNoise, dream, evaluate
from touchstone.callbacks import DeepDream, GradientNorm, PerClass, RobustAccuracy, RobustnessCurves, Saturation
from touchstone.lightning_modules import Classifier

from .judged import LINF, PGD_5
from .lightning_programs import train_loader, trainer, val_loader, weights
from .oracles import images, own_labels, small_net


class Counting(nn.Module):
    """Counts its forwards, whatever its mode, and answers by that: in the buffer, or in another in its place."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = small_net(), in_place
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.seen += 1
        else:
            self.seen = self.seen + 1
        return self.net(x) * (1 + self.seen / 100)


@pytest.mark.parametrize("in_place", [True, False])
def test_evaluate_leaves_buffers_as_they_were_and_says_that_they_change(in_place: bool) -> None:
    x, model = images(12), Counting(in_place=in_place)
    buffer, y = model.seen, own_labels(small_net(), x)
    report = evaluate(model, x, y, {"pgd": PGD_5})
    assert model.seen is buffer
    assert float(buffer) == 0
    assert any("changes its own state in evaluation mode (seen)" in line for line in report.warnings)
    dream(model, "net.0", x[:1], num_steps=1)
    assert float(model.seen) == 0


class Various(nn.Module):
    """Running statistics that go on in evaluation mode, and a buffer of one number that is many."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(1), small_net()
        self.register_buffer("ones", torch.ones(()).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()  # whose statistics change without a new version
        self.norm(x)
        return self.net(x) * self.ones


class Filling(nn.Module):
    """Fills a buffer that held nothing, makes one, and lets go of one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.register_buffer("cache", None)
        self.register_buffer("once", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.cache = x.mean(0)
        self.register_buffer("made", torch.zeros(3), persistent=False)
        if "once" in self._buffers:
            del self.once
        return self.net(x)


def test_a_model_has_the_buffers_that_it_had() -> None:
    x, model = images(12), Filling()
    once, saved = model.once, list(model.state_dict())
    evaluate(model, x, own_labels(small_net(), x), {"none": RandomNoise(threat=LINF)}, probe_masking=False)
    assert dict(model.named_buffers(recurse=False)).keys() == {"once"}
    assert model.once is once
    assert list(model.state_dict()) == saved
    model.cache = torch.ones(())
    assert "cache" in model.state_dict()


class Deciding(nn.Module):
    """Takes a shift from its first batch, into a buffer that it makes then, or had; and remembers that it did."""

    def __init__(self, *, how: str) -> None:
        super().__init__()
        self.net, self.how, self.is_ready = small_net(), how, False
        if how != "made":
            (self.net if how == "of a part" else self).register_buffer("shift", torch.zeros(1, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_ready:
            shift = x.detach().mean(0)
            if self.how == "made":
                self.register_buffer("shift", shift)
            elif self.how == "written":
                self.shift.copy_(shift)
            elif self.how == "written unseen":
                self.shift.data.copy_(shift)
            else:
                self.net.shift.copy_(shift)
            self.is_ready = True
        return self.net(x - (self.net if self.how == "of a part" else self).shift)


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
@pytest.mark.parametrize("how", ["made", "written", "written unseen", "of a part"])
def test_the_first_batch_decides_that_a_model_is_given_after_it_was_looked_at(how: str) -> None:
    x, model, fresh = images(12), Deciding(how=how).eval(), Deciding(how=how).eval()
    evaluate(model, x, own_labels(small_net(), x), {"pgd": PGD_5})
    dream(model, "net.0", x[:1], num_steps=1)
    assert not model.is_ready
    others = images(12, seed=1)
    assert torch.equal(model(others), fresh(others))
    assert torch.equal((model.net if how == "of a part" else model).shift, others.mean(0))


def test_a_buffer_that_can_only_be_read_is_not_written(tmp_path: Path) -> None:
    """To write into a file that is mapped for reading ends the process."""
    np.save(tmp_path / "table.npy", np.ones(3, np.float32))
    x, model = images(12), small_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that it cannot be written
        model.register_buffer("table", torch.from_numpy(np.load(tmp_path / "table.npy", mmap_mode="r")))
    evaluate(model, x, own_labels(model, x), {"none": RandomNoise(threat=LINF)}, probe_masking=False)
    assert model.table.tolist() == [1, 1, 1]


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return small_net().requires_grad_(False)


@pytest.mark.parametrize("make", [Various, made_in_inference_mode])
def test_buffers_of_every_kind_are_kept(make: Callable[[], nn.Module]) -> None:
    x, model = images(12), make()
    before = weights(model)
    evaluate(model, x, own_labels(small_net(), x), {"none": RandomNoise(threat=LINF)}, probe_masking=False)
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])] == []


def test_a_backward_pass_may_come_after_a_look_at_the_model() -> None:
    """Of a forward in the mode of training, whose statistics it holds."""
    x, net = images(12), small_net().train()
    loss = net(x).sum()
    evaluate(net, x, own_labels(net, x), {"pgd": PGD_5})
    loss.backward()


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
@pytest.mark.parametrize(
    "make",
    [partial(Counting, in_place=True), partial(Counting, in_place=False), partial(Deciding, how="made")],
    ids=["in place", "in its place", "at first"],
)
def test_training_is_the_same_with_callbacks_that_measure(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    measuring: list[pl.Callback] = [
        RobustAccuracy({"pgd": PGD_5}, num_images=1),
        GradientNorm(),
        PerClass(),
        Saturation(),
        RobustnessCurves(attack=PGD_5, eps=[LINF.eps], steps=[1]),
        DeepDream(layers=["net.net.0"], options={"num_steps": 1}),
    ]
    ends = []
    for callbacks in ([], measuring):
        module = Classifier(make())
        torch.manual_seed(3)
        trainer(tmp_path, *callbacks, max_epochs=2, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
        ends.append(weights(module))
    assert ends[0].keys() == ends[1].keys()
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []
