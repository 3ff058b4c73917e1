"""The line that says how many parameters are trained."""

from __future__ import annotations

from typing import Any

import pytest

from touchstone.nets import SmallCNN

from .command_lines import TINY, with_value, write

pytestmark = pytest.mark.usefixtures("here")

NET = SmallCNN(width=4, hidden=8)
NUM_ALL = sum(parameter.numel() for parameter in NET.parameters())
NUM_LAST = 8 * 10 + 10  # the last layer, from 8 units to 10 classes
NUM_HEAD = sum(parameter.numel() for parameter in NET.classifier.parameters())


def said(run: Any, config: Any) -> str:
    ended = run("fit", "--config", write(config))
    assert ended.code == 0
    (line,) = [line for line in ended.out.splitlines() if "parameters to train" in line]
    return line


def test_a_net_of_which_all_is_trained_has_one_number(run: Any) -> None:
    assert said(run, TINY) == f"Classifier with {NUM_ALL:,} parameters to train"


@pytest.mark.parametrize(
    ("unfreeze", "num_trained"),
    [({}, NUM_LAST), ({1: ["net.classifier.*"]}, NUM_LAST), ({0: ["net.classifier.*"]}, NUM_HEAD)],
)
def test_what_a_callback_has_frozen_is_not_counted(run: Any, unfreeze: dict[int, list[str]], num_trained: int) -> None:
    finetuning = {
        "class_path": "touchstone.callbacks.Finetuning",
        "init_args": {"train": ["net.classifier.3"], "unfreeze": unfreeze},
    }
    config = with_value([finetuning], "trainer", "callbacks")
    line = f"Classifier with {num_trained:,} of {NUM_ALL:,} parameters to train in epoch 1"
    assert said(run, config) == line


def test_an_evaluation_trains_nothing_and_says_nothing_of_it(run: Any) -> None:
    assert "parameters to train" not in run("validate", "--config", write(TINY)).out
