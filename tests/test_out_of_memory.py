"""An evaluation that really does not fit: in a process that may take a little more memory, and no more."""

from __future__ import annotations

import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, PGD, Linf, evaluate

from .oracles import images

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's limit of memory")

MORE = 100 << 20  # bytes, where 128 samples take 134 MB for each layer's output


class Wide(nn.Module):
    """Makes 256 numbers of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.head = nn.Conv2d(1, 256, 3, padding=1), nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(x).relu().amax((2, 3)))


def limit_memory() -> None:
    """To what the process has now, and a little more."""
    [taken] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
    limit = int(taken.split()[1]) * 1024 + MORE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def measure_twice() -> None:
    """In small batches, and then in one that does not fit."""
    net, x = Wide().eval(), images(128, shape=(1, 32, 32))
    with torch.no_grad():
        logits = torch.cat([net(part) for part in x.split(8)])
        net.head.bias -= logits.mean(0)  # so that some samples are near a boundary
        y = (logits - logits.mean(0)).argmax(1)
    attacks = {"fgsm": FGSM(threat=Linf(eps=0.005)), "pgd": PGD(threat=Linf(eps=0.005), num_steps=2)}
    small = evaluate(net, x, y, attacks, batch_size=8)
    limit_memory()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        large = evaluate(net, x, y, attacks, batch_size=128)
    for name in attacks:
        assert 0 < int(small.robust[name].sum()) < 128, small
        assert torch.equal(small.robust[name], large.robust[name]), name
    print("\n".join(str(one.message) for one in said))


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved_and_the_verdicts_are_the_same(root: Path) -> None:
    command = [sys.executable, "-m", "tests.test_out_of_memory"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    [said] = run.stdout.splitlines()
    assert said.startswith("a batch of 128 samples does not fit into memory: going on with ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure_twice()
