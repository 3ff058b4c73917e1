"""A plugin of pytest: tests marked `gpu` run on a pretended device, which `device.cpp` is.

`PRETENDED_DEVICE=FILE python -m pytest -p tests.pretended.plugin -m gpu`, where FILE is what was built of it.
"""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from touchstone.float64 import WITHOUT_FLOAT64

NAME = "pretended"
_EXIT_STATUS = pytest.StashKey[int]()


def _module() -> ModuleType:
    """What torch asks of a device: `torch.pretended`."""
    state = torch.zeros(1, dtype=torch.uint8)
    module = ModuleType(f"torch.{NAME}")
    for name, answer in {
        "is_available": True,
        "is_initialized": True,
        "_is_in_bad_fork": False,
        "device_count": 1,
        "current_device": 0,
        "get_rng_state": state,
        "set_rng_state": None,
        "manual_seed": None,
        "manual_seed_all": None,
        "synchronize": None,
        "get_amp_supported_dtype": [torch.bfloat16],
    }.items():
        setattr(module, name, functools.partial(lambda answer, *_: answer, answer))
    return module


class Pretended(Accelerator):
    """Lightning's idea of it."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


def pytest_configure() -> None:
    torch.ops.load_library(os.environ["PRETENDED_DEVICE"])
    torch.utils.rename_privateuse1_backend(NAME)
    if "PRETENDED_WITHOUT_FLOAT64" in os.environ:
        WITHOUT_FLOAT64.add(NAME)
    torch._register_device_module(NAME, _module())
    torch.utils.generate_methods_for_privateuse1_backend()
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that a moved parameter is the same, as on CUDA
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_: self.to(NAME)  # type: ignore[method-assign]
    make = pl.Trainer.__init__

    @functools.wraps(make)
    def make_there(self: pl.Trainer, **options: Any) -> None:
        if options.get("accelerator") == "gpu":
            options["strategy"] = SingleDeviceStrategy(torch.device(NAME, 0), accelerator=Pretended())
            del options["accelerator"], options["devices"]
        make(self, **options)

    pl.Trainer.__init__ = make_there  # type: ignore[method-assign]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes away the mark for which `conftest.py` skips them, once `-m gpu` has chosen by it."""
    for item in items:
        for node in item.listchain():
            node.own_markers = [mark for mark in node.own_markers if mark.name != "gpu"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends at once: torch does not end the threads of such a device."""
    sys.stdout.flush()
    os._exit(config.stash.get(_EXIT_STATUS, 1))
