"""The benchmarks that ask Linux how much memory a process has taken."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of a process")


def test_memory_is_counted_beyond_the_libraries(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = benchmark("memory")
    only_torch = "import torch\nbefore = kilobytes('VmHWM')"
    assert 190_000 < memory.peak("big = torch.ones(50_000_000)", 1, only_torch) < 300_000
    for setting in (memory.SETTING, benchmark("sequences").SETTING):
        assert setting.rindex("import ") < setting.index("before = ")
    monkeypatch.setattr(sys, "argv", ["", "1"])
    exec(f"{memory.KILOBYTES}\n{memory.SETTING}\n{memory.CANDIDATES['forward and backward']}", {})


def test_sequences_are_compared_with_those_of_torch(
    benchmark: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark("sequences")
    peak = cache(lambda work, setting: benchmark("memory").peak(work, 4, setting))  # one process for all lengths
    monkeypatch.setattr(module, "peak", lambda work, length, setting: peak(work, setting))
    module.main(num_turns=1, num_threads=1, small=True)
    printed = capsys.readouterr().out
    for name in ("RNN", "GRU", "LSTM"):
        assert all(f"│ {row} " in printed for row in (f"nn.{name}", name, f"{name}, plain steps"))
    assert all(f"TransformerBlock, {norm}-norm" in printed for norm in ("pre", "post"))
    assert printed.count("KiB a step") == printed.count("with a cache, us") == 1
