"""Every callback on CUDA, in every precision, with the CPU's verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, L2, PGD, Linf, Margin, RandomNoise, SampleRng, Untargeted, evaluate
from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.nets import GRU, LSTM, RNN

from .lightning_programs import OrdinaryModule, train_loader, trainer, val_loader
from .oracles import images, own_labels, small_net

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
def test_every_callback_in_every_precision(tmp_path: Path, precision: str) -> None:
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
    x, weight = torch.randn(16, 40, 8, device="cuda", requires_grad=True), torch.randn(16, 40, 32, device="cuda")
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
