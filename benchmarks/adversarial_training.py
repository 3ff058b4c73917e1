"""A step of adversarial training over plain steps, in time and in memory: `python benchmarks/adversarial_training.py`.

Time is counted in plain steps (forward, backward, optimizer) of the same net and batch, beside the passes that the
papers count. Memory is the peak of two steps of a ResNet-18 for small images, each candidate in a Python of its own, as
in `memory.py`; Linux only. What is freed goes back to the system at once there, so that the peak is what was held.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from memory import peak
from timing import set_up, show, take_turns
from torch import nn

from touchstone.attacks import PGD, Linf, SampleRng
from touchstone.lightning_modules import AWP, FGSMRS, MART, PGDAT, TRADES, Free, Mixed, Strategy
from touchstone.lightning_modules.adversarial_training import Criterion

NUM_STEPS = 5
THREAT = Linf(eps=8 / 255)
INNER = PGD(threat=THREAT, num_steps=NUM_STEPS, to_the_end=True)
WAYS: dict[str, tuple[Callable[[], Strategy], int]] = {
    "plain": (Strategy, 1),
    "PGD-AT": (lambda: PGDAT(INNER), NUM_STEPS + 1),
    "TRADES": (lambda: TRADES(INNER), NUM_STEPS + 2),
    "MART": (lambda: MART(INNER), NUM_STEPS + 2),
    "Mixed + PGD-AT": (lambda: Mixed(PGDAT(INNER)), NUM_STEPS + 2),
    "AWP + PGD-AT": (lambda: AWP(PGDAT(INNER)), NUM_STEPS + 2),
    "FGSM-RS": (lambda: FGSMRS(THREAT), 2),
    "Free": (lambda: Free(THREAT), 1),
}
SETTING = """
import ctypes
import torch
from touchstone.nets import CifarResNet
from adversarial_training import WAYS, train_step

ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD
before = kilobytes("VmHWM")
torch.manual_seed(0)
net = CifarResNet(18)
x, y = torch.rand(int(sys.argv[1]), 3, 32, 32), torch.randint(10, (int(sys.argv[1]),))
optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
"""


def train_step(
    strategy: Strategy, net: nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer: torch.optim.Optimizer
) -> None:
    """What Lightning does with a batch."""
    optimizer.zero_grad()
    strategy.learn(net, x, y, Criterion(), SampleRng.numbered(len(x))).loss.backward()
    strategy.after_backward(net)
    optimizer.step()


def main(
    num_turns: int = 3,
    num_threads: int | None = None,
    batch_size: int = 32,
    memory_batch_size: int | None = 64,
    small: bool = False,
) -> None:
    """Measures torchvision's ResNet-18 in time, and the one for small images in memory, on images of 32 x 32.

    Args:
        num_turns: how often each candidate's time is measured, in turns; memory is measured once.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        batch_size: samples in the batch where time is measured.
        memory_batch_size: the same for memory; None leaves memory out.
        small: whether to shrink everything, to see that it runs.
    """
    from torchvision.models import resnet18

    clock = set_up(num_threads)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) if small else resnet18(num_classes=10)
    x, y = torch.rand(batch_size, 3, 32, 32), torch.randint(10, (batch_size,))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    candidates = {name: partial(train_step, make(), net, x, y, optimizer) for name, (make, _) in WAYS.items()}
    seconds = take_turns(candidates, num_turns, clock)
    can = Path("/proc/self/status").exists()
    peaks = _peaks(memory_batch_size) if memory_batch_size and can and not small else {}
    rows = []
    for name, (_, num_passes) in WAYS.items():
        cost = min(seconds[name]) / min(seconds["plain"])
        memory = f"{peaks[name] / peaks['plain']:.3f}" if peaks else "not measured"
        rows.append((name, f"{cost:.2f}", num_passes, f"{cost / num_passes:.3f}", memory))
    headers = ("a step", "in plain steps", "passes of the paper", "ratio", "peak memory over plain")
    show(f"{NUM_STEPS} steps of PGD, batch {batch_size}; memory: {memory_batch_size}; fastest turns", headers, rows)


def _peaks(batch_size: int) -> dict[str, int]:
    """Kilobytes by candidate."""
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    work = "strategy = WAYS[{!r}][0]()\nfor _ in range(2): train_step(strategy, net, x, y, optimizer)"
    return {name: peak(work.format(name), batch_size, f"{here}\n{SETTING}") for name in WAYS}


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
