"""What every test may use: where the project is, the models and data beside it, and the markers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers already share the CPUs
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared(root: Path) -> Path:
    """Models and data that are no part of the project: the folder `shared/` beside it."""
    folder = root.parent / "shared"
    if not folder.is_dir():
        pytest.skip("there is no folder shared/ beside the project")
    return folder
