"""What every test may use: where the project is, the models and data beside it, and the markers."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import train

from .command_lines import RUN, SHORT, TINY, Ended, Fits, fitted_in, given
from .oracles import images, own_labels, small_net
from .shown_files import shown_files

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers already share the CPUs
    torch.set_num_threads(1)
for devices in (torch.cuda, torch.xpu):  # where there are none, torch keeps each seed for them, with a printed stack
    if not devices.device_count():
        devices.manual_seed_all = lambda seed: None


def pytest_collection_finish() -> None:
    """Takes what was made so far, which stays, out of what the garbage collector goes through."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Gives it back to the collector, or nanobind reports what is left as leaks when the interpreter ends."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _the_same_start() -> None:
    """A test's random numbers do not depend on the tests that ran before it in the same process."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


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


@pytest.fixture
def net() -> nn.Module:
    """A small net of four classes."""
    return small_net()


@pytest.fixture
def x() -> Tensor:
    """Images for it, `(12, 1, 6, 6)`."""
    return images(12)


@pytest.fixture
def y(net: nn.Module, x: Tensor) -> Tensor:
    """What it takes them for."""
    return own_labels(net, x)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what a command does to the imports is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("attacks", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the documents beside the project's configs, as in a clone."""
    for name, text in shown_files(root).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "configs").symlink_to(root / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        code = train.main(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture
def benchmark(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a benchmark as `python benchmarks/NAME.py` finds it; leaves threads, logs and memory as they are."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.setattr("touchstone.cli.kept_memory.keep_freed_memory", lambda: False)
    num_threads = torch.get_num_threads()
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    torch.set_num_threads(num_threads)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for path in (root / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny config was fitted once."""
    return fitted_in(tmp_path_factory.mktemp("fitted"), TINY)


@pytest.fixture
def copied(run: Any, fitted: Path) -> Path:
    """A copy of a run in the current folder."""
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    return Path(RUN)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Fits:
    """Gives the folder in which configs of the project were fitted for two steps, once for all tests of a file.

    Options that name files of the first test hold for all of them.
    """
    done: dict[tuple[str, ...], Path] = {}

    def fit(*configs: str, options: Sequence[str] = ()) -> Path:
        if configs not in done:
            folder = tmp_path_factory.mktemp("fit")
            with pytest.MonkeyPatch.context() as place:
                place.chdir(folder)
                assert train.main(["fit", *given(*configs), *options, *SHORT]) == 0
            done[configs] = folder
        return done[configs]

    return fit
