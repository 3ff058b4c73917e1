"""`StopAfterStep`: no signal is lost, whenever it comes."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from touchstone.cli.stop_after_step import StopAfterStep
from touchstone.cli.stopping import Stopping


@pytest.mark.parametrize("of_others", [0, signal.SIGTERM])
def test_a_signal_that_comes_while_processes_ask_one_another_is_answered_at_the_next_step(of_others: int) -> None:
    stopping = Stopping()

    def reduce(number: Tensor, reduce_op: str) -> Tensor:
        stopping.signal = signal.SIGUSR1
        return number.clamp_min(of_others)

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy)
    callback = StopAfterStep(stopping)
    assert callback._is_asked(trainer) is bool(of_others)
    assert stopping.signal == (of_others or signal.SIGUSR1)
