"""Attacks and callbacks find on CUDA what they find on the CPU."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import FGSM, L2, PGD, L1Adam, Linf, Margin, RandomNoise, SampleRng, Untargeted, evaluate
from touchstone.callbacks import (
    DeepDream,
    GradientNorm,
    InputGradients,
    LeastVisible,
    NamedPredictions,
    RobustAccuracy,
    StandardAgainstRobust,
    TargetedPictures,
)
from touchstone.datamodules import PicturesDataModule
from touchstone.nets import GRU, LSTM, RNN, Normalize

from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader
from .oracles import images, own_labels, small_net
from .picture_folders import Classes

pytestmark = pytest.mark.gpu

ATTACKS = {
    "noise": RandomNoise(threat=Linf(eps=0.08)),
    "fgsm": FGSM(threat=Linf(eps=0.08)),
    "pgd": PGD(threat=Linf(eps=0.08), num_steps=10),
    "l2": PGD(threat=L2(eps=0.4), num_steps=10),
}


def near_zero_margin(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return Margin()(net.eval()(x_adv), y).abs() < 1e-3


def test_noise_is_the_same_on_every_device() -> None:
    rng, like = SampleRng.numbered(9, seed=3), torch.empty(9, 3, 8, 8)
    assert torch.equal(rng.uniform(like), rng.uniform(like.cuda()).cpu())
    assert torch.allclose(rng.normal(like), rng.normal(like.cuda()).cpu(), atol=1e-5)


def test_verdicts_are_those_of_the_cpu() -> None:
    net, x = small_net(), images(200)
    y = own_labels(net, x)
    on_cpu = evaluate(net, x, y, ATTACKS, keep_adversarial=True)
    on_gpu = evaluate(net.cuda(), x.cuda(), y.cuda(), ATTACKS)
    net.cpu()
    for name in ATTACKS:
        differs = on_cpu.robust[name] != on_gpu.robust[name].cpu()
        assert not (differs & ~near_zero_margin(net, on_cpu.x_adv[name], y)).any(), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_verdicts_of_a_fit_in_every_precision(tmp_path: Path, precision: str) -> None:
    module = OrdinaryModule()
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), GradientNorm(), accelerator="gpu", precision=precision)
    run.fit(module, train_loader(), val_loader())
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    net = module.cpu()
    report = evaluate(net, x, y, ATTACKS, keep_adversarial=True)
    for name in ATTACKS:
        differs = torch.tensor(stored[f"robust_{name}"]) != report.robust[name]
        assert not (differs & ~near_zero_margin(net, report.x_adv[name], y)).any(), name
    for tag in ("grad_norm/val/input", "grad_norm/val/parameters"):
        assert torch.isfinite(run.callback_metrics[tag])


def test_normalized_batches_are_attacked_in_pixels_as_on_the_cpu(tmp_path: Path) -> None:
    mean, std = 0.5, 0.25
    given = ([mean], [std])
    pixels, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    loader = DataLoader(TensorDataset((pixels - mean) / std, y), 10)
    module, found = OrdinaryModule(), []
    module.net = nn.Sequential(Normalize([-mean / std], [1 / std]), module.net)  # back to pixels
    for accelerator in ("cpu", "gpu"):
        callbacks = RobustAccuracy(ATTACKS, normalization=given), GradientNorm(normalization=given)
        run = trainer(tmp_path / accelerator, *callbacks, accelerator=accelerator)
        run.validate(module, loader, verbose=False)
        found.append({tag: float(figure) for tag, figure in run.callback_metrics.items()})
    assert {"val/robust_accuracy/pgd", "grad_norm/val/input"} <= found[0].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1.01 / len(y))  # a near-zero margin


def test_what_is_drawn_of_a_validation_is_that_of_the_cpu(tmp_path: Path) -> None:
    ascent = PGD(threat=L2(eps=1.5), num_steps=5, random_start=True, to_the_end=True)
    layers, found = {"own": "net.0", "other": "0"}, []
    for accelerator in ("cpu", "gpu"):
        beside = StandardAgainstRobust(
            {"other": small_net(seed=5)}, attack=ascent, target=2, layers=layers, name="own", options={"num_steps": 3}
        )
        dreams = DeepDream(["net.0", "5:2"], options={"num_steps": 5, "jitter": 1})
        run = trainer(tmp_path / accelerator, dreams, InputGradients(), beside, accelerator=accelerator)
        run.validate(OrdinaryModule(), val_loader(), verbose=False)
        drawn = {"deepdream/net.0", "deepdream/5:2", "input_gradients", "standard_against_robust"}
        assert drawn <= set(events(tmp_path / accelerator).Tags()["images"])
        assert all((dreamt.value > dreamt.value_at_start).all() for dreamt in dreams._dreamt)
        found.append({tag: float(share) for tag, share in run.callback_metrics.items() if "low_frequency" in tag})
    assert len(found[0]) == 6
    assert found[1] == pytest.approx(found[0], abs=0.01)


def test_pictures_are_named_and_climbed_as_on_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, colour in (("a", (140, 120, 120)), ("b", (120, 140, 120)), ("c", (120, 120, 140))):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "in" / f"{name}.png")
    data = PicturesDataModule(str(tmp_path / "in"), image_size=16, resize=16, class_names=["red", "green", "blue"])
    attacks = {"pgd": PGD(threat=Linf(eps=0.15), num_steps=10)}
    descent = L1Adam(threat=Linf(eps=1), step_size=0.01, num_steps=60, penalty=0.001)
    columns = {"predictions": ("class_1",), "targeted": ("reached",), "least_visible": ("target", "reached")}
    found = []
    for accelerator in ("cpu", "gpu"):
        callbacks = (
            NamedPredictions(top_k=2),
            TargetedPictures("blue", attacks=attacks, feature_layers=["net.0"]),
            LeastVisible(["blue", "green"], attack=descent, num_rounds=2),
        )
        run = trainer(tmp_path / accelerator, *callbacks, accelerator=accelerator)
        run.predict(Classes(), data, return_predictions=False)
        for table, names in columns.items():
            with (Path(run.log_dir) / f"{table}.csv").open() as file:  # type: ignore[arg-type]
                found.append([[Path(row["file"]).name, *(row[name] for name in names)] for row in csv.DictReader(file)])
    assert [len(rows) for rows in found[:3]] == [3, 3, 4]
    assert found[3:] == found[:3]


class Recurrent(nn.Module):
    """The rows of an image as a sequence, through cuDNN where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, 0])[0][:, -1])


@pytest.mark.parametrize("training", [False, True])
def test_recurrent_nets_through_cudnn(training: bool) -> None:
    torch.manual_seed(0)
    net, x = Recurrent().cuda().train(training), images(64).cuda()
    y = own_labels(net, x)
    enabled = torch.backends.cudnn.enabled
    report = evaluate(net, x, y, ATTACKS)
    assert report.cost["pgd"].num_backwards > 0
    assert torch.backends.cudnn.enabled == enabled
    assert net.training == training


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru"])
def test_the_recurrent_layers_by_hand_are_those_of_cudnn(case: str) -> None:
    """Outputs and all gradients, without the TF32 that cuDNN rounds products to where it may."""
    own, oracle = {"rnn": (RNN, nn.RNN), "lstm": (LSTM, nn.LSTM), "gru": (GRU, nn.GRU)}[case]
    torch.manual_seed(0)
    theirs = oracle(8, 32, 2, batch_first=True).cuda()
    mine = own(8, 32, 2).cuda()
    mine.load_state_dict(theirs.state_dict())
    x, weight = torch.randn(16, 40, 8).cuda().requires_grad_(), torch.randn(16, 40, 32).cuda()
    found = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for net in (mine, theirs):
            output, state = net(x)
            last = state if isinstance(state, tuple) else (state,)
            loss = (output * weight).sum() + sum(part.square().sum() for part in last)
            names = dict(net.named_parameters())
            grads = torch.autograd.grad(loss, [x, *names.values()])
            found.append([output, *last, *(grad / grad.abs().max() for grad in grads)])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_no_step_waits_for_the_device() -> None:
    """The profiler sees as many synchronisations for 40 steps as for 20, up to one in five steps."""
    net, x = small_net().cuda().eval(), images(64).cuda()
    y = own_labels(net, x)

    def waits(num_steps: int) -> int:
        attack = PGD(threat=Linf(eps=0.001), num_steps=num_steps, objective=Untargeted(loss=Margin()))
        attack(net, x, y)
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            attack(net, x, y)
        names = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::item")
        return sum(event.count for event in profile.key_averages() if event.key in names)

    assert waits(40) - waits(20) <= 2 * 20 // 5
