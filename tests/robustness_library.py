"""The library robustness (Engstrom et al., 2019), whose checkpoints are to be read, on a torchvision of today."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def imported(name: str) -> Any:
    """A module of the library; some of it asks for `torchvision.models.utils`, which is no more."""
    import importlib

    stub = ModuleType("torchvision.models.utils")
    stub.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
    sys.modules.setdefault(stub.__name__, stub)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"robustness.{name}")


class Means:
    """What `AttackerModel` wants to know of a data set."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std


def attacker_model(net: nn.Module, mean: Tensor, std: Tensor) -> nn.Module:
    return imported("attacker").AttackerModel(net, Means(mean, std))
