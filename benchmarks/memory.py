"""Peak memory of an evaluation over that of one forward and backward: `python benchmarks/memory.py`.

Every candidate runs in a Python of its own. Its peak is counted from where it stands once the libraries are loaded, so
that net and batch are in it. On the CPU, under Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from timing import show

ROOT = Path(__file__).resolve().parent.parent

KILOBYTES = """
import sys
from pathlib import Path


def kilobytes(key):
    # As getrusage's ru_maxrss, without what a child inherits from the process that started it.
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if key in line))
"""
SETTING = """
import torch
import torch.nn.functional as F
from torchvision.models import resnet18
from touchstone.attacks import PGD, Linf, evaluate

before = kilobytes("VmHWM")
torch.manual_seed(0)
net = resnet18(num_classes=10).eval()
x = torch.rand(int(sys.argv[1]), 3, 32, 32)
with torch.no_grad():
    y = net(x).argmax(1)  # right on all of them, so that all are attacked
"""
CANDIDATES = {
    "forward and backward": "F.cross_entropy(net(x), y).backward()",
    "gradient of the input, frozen weights": (
        "net.requires_grad_(False); z = x.clone().requires_grad_(); torch.autograd.grad(F.cross_entropy(net(z), y), z)"
    ),
    "evaluate, PGD of 5 steps": "evaluate(net, x, y, {'pgd': PGD(threat=Linf(eps=8/255), num_steps=5)})",
    "evaluate, PGD of 5 steps, early_stop=False": (
        "evaluate(net, x, y, {'pgd': PGD(threat=Linf(eps=8/255), num_steps=5, early_stop=False)})"
    ),
    "evaluate, PGD of 40 steps, early_stop=False": (
        "evaluate(net, x, y, {'pgd': PGD(threat=Linf(eps=8/255), num_steps=40, early_stop=False)})"
    ),
}


def peak(work: str, size: int, setting: str = SETTING) -> int:
    """The peak of a piece of work in kilobytes, beyond the libraries.

    Args:
        work: Python, run after the setting.
        size: given to it as `sys.argv[1]`.
        setting: Python that loads libraries, sets `before = kilobytes("VmHWM")`, and makes what the work needs.
    """
    code = f"{KILOBYTES}\n{setting}\n{work}\nprint(kilobytes('VmHWM') - before)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(size)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main(num_turns: int = 5, batch_size: int = 64) -> None:
    """Measures a ResNet-18 on images of 32 x 32.

    Args:
        num_turns: how often each candidate is measured, in turns.
        batch_size: samples in the batch.
    """
    peaks: dict[str, list[int]] = {name: [] for name in CANDIDATES}
    for _ in range(num_turns):
        for name, work in CANDIDATES.items():
            peaks[name].append(peak(work, batch_size))
    reference, gradient = (median(peaks[name]) for name in list(CANDIDATES)[:2])
    rows = [
        (name, f"{median(p) / reference:.2f}", f"{median(p) / gradient:.2f}", f"{median(p) / 1024:.0f}")
        for name, p in peaks.items()
    ]
    headers = ("", "ratio", "to the gradient of the input", "median, MiB")
    show(f"Peak memory, ResNet-18, {batch_size} images of 3 x 32 x 32", headers, rows)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
