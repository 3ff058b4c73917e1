"""The tests for CUDA pass on a device that every machine has, so that what forgets to move there is found anywhere.

What only CUDA has stays untried: cuDNN, its mixed precision, and how long it is waited for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device as a library of torch."""
    compiler = shutil.which("c++")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs a compiler of C++ on Linux")
    libraries, built = Path(torch.__file__).parent / "lib", tmp_path_factory.mktemp("pretended") / "device.so"
    headers = [f"-I{folder}" for folder in include_paths()]
    where_to = ["-o", str(built), f"-L{libraries}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{libraries}"]
    source = HERE / "pretended" / "device.cpp"
    subprocess.run([compiler, "-O1", "-std=c++20", "-shared", "-fPIC", "-w", *headers, source, *where_to], check=True)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("has_float64", [True, False])
def test_the_tests_for_cuda_pass_on_a_pretended_device(root: Path, built: Path, has_float64: bool) -> None:
    """On one without float64 too, as Apple's."""
    marked = [str(file) for file in sorted(HERE.glob("test_*.py")) if "mark.gpu" in file.read_text()]
    marked.remove(__file__)
    beyond_it = "not mixed and not cudnn and not waits" + ("" if has_float64 else " and not float64")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.pretended.plugin", "-m", "gpu", "-k", beyond_it]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PRETENDED_DEVICE": str(built), "PYTHONPATH": str(root)}
    environment |= {} if has_float64 else {"PRETENDED_WITHOUT_FLOAT64": "1"}
    ended = subprocess.run([*command, *marked], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout
