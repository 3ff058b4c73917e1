"""Classes of one's own with a slip in them: the message says what is missing, before anything is trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from touchstone.attacks import Attack, Threat
from touchstone.cli.class_slips import no_field
from touchstone.datamodules import ImagesDataModule

from .command_lines import ATTACK, with_value, write

pytestmark = pytest.mark.usefixtures("here")

CODE = """
from dataclasses import dataclass

from touchstone.attacks import Attack, Objective, Threat


class Plain(Attack):
    threat: Threat


@dataclass(frozen=True, kw_only=True)
class Untyped(Attack):
    threat: Threat
    num_steps = 10


@dataclass(frozen=True)
class Half(Objective):
    def gain(self, logits, y):
        return logits[:, 0]


class Nowhere(Threat):
    pass
"""
THREAT = {"class_path": "touchstone.attacks.Linf", "init_args": {"eps": 0.1}}
SLIPS = {
    "an attack that is no dataclass": (
        {"class_path": "mine.own.Plain", "init_args": {"threat": THREAT}},
        "Plain has no parameter 'threat': its fields become parameters by @dataclass",
    ),
    "a field without a type": (
        {"class_path": "mine.own.Untyped", "init_args": {"threat": THREAT, "num_steps": 3}},
        "Untyped has no parameter 'num_steps': a field of a dataclass needs a type, num_steps: int",
    ),
    "an objective that never says what is reached": (
        {
            "class_path": "touchstone.attacks.PGD",
            "init_args": {"threat": THREAT, "objective": {"class_path": "mine.own.Half"}},
        },
        "Half must define reached",
    ),
    "a threat without its methods": (
        {"class_path": "touchstone.attacks.PGD", "init_args": {"threat": {"class_path": "mine.own.Nowhere"}}},
        "Nowhere must define check_input, contains, direction, distance, project, start",
    ),
    "a module without its folder": (
        {"class_path": "own.Plain", "init_args": {"threat": THREAT}},
        "there is no module 'own'; did you mean 'mine.own.Plain'?",
    ),
    "a folder misspelt": (
        {"class_path": "mien.own.Plain", "init_args": {"threat": THREAT}},
        "there is no module 'mien'; did you mean 'mine'?",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_class_of_one_s_own_says_what_is_missing(
    slip: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mine.own", raising=False)
    Path("mine").mkdir()
    Path("mine/own.py").write_text(CODE)
    attack, message = SLIPS[slip]
    ended = run("fit", "--config", write(with_value(attack, *ATTACK)))
    assert ended.code == 2
    assert message in ended.first_line


def test_only_what_is_to_be_a_dataclass_is_told_to_be_one() -> None:
    class Net(torch.nn.Module):
        hidden: int

        def __init__(self, width: int) -> None:
            super().__init__()

    @dataclass(frozen=True, kw_only=True)
    class Mine(Attack):
        threat: Threat
        supports = (Threat,)

        @property
        def size(self) -> int:
            return 3

    assert no_field(Net, "hidden") is None
    assert no_field(Mine, "supports") is None
    assert no_field(Mine, "size") is None
    assert no_field(ImagesDataModule, "class_names") is None
