"""What the tests of measurements in a Trainer share: a suite of attacks, a probe, datasets, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from touchstone.attacks import FGSM, PGD, Attack, Linf, RandomNoise, SampleRng, Threat
from touchstone.callbacks import Probe

from .lightning_programs import val_loader

LINF = Linf(eps=0.08)
ATTACKS = {"noise": RandomNoise(threat=LINF), "pgd": PGD(threat=LINF, num_steps=5), "fgsm": FGSM(threat=LINF)}


@dataclass(frozen=True)
class Pooling(Attack):
    """Adds one image to all samples: the sign of the gradient of their mean loss."""

    threat: Threat
    pools = True

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.objective.gain(model(x), y).mean(), x)
        return self.threat.project(x + self.threat.eps * grad.mean(0, keepdim=True).sign(), x).detach()


class Confidence(Probe):
    """The measurement of the README."""

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"confidence": model(x).softmax(1).amax(1)}


class Mapped(Dataset):
    """A dataset whose samples are made by a function of (x, y)."""

    def __init__(self, make: Any) -> None:
        self.tensors, self.make = val_loader().dataset.tensors, make  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> Any:
        return self.make(self.tensors[0][index], self.tensors[1][index])


def robust_of(run: pl.Trainer) -> list[bool]:
    return np.load(Path(run.log_dir) / "verdicts.npz")["robust_pgd"].tolist()  # type: ignore[arg-type]


def wrong_batches(make: Any) -> DataLoader:
    return DataLoader(Mapped(make), 10)
