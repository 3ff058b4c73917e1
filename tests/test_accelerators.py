"""On an accelerator attacks ask seldom who has finished, since they would wait for it; here a CPU is taken for one."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from touchstone.attacks import (
    APGD,
    EAD,
    FAB,
    L0,
    L1,
    L2,
    MIFGSM,
    PGD,
    Attack,
    CarliniWagner,
    DeepFool,
    L1Adam,
    Linf,
    SampleRng,
    Square,
)

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net

TINY = {"linf": Linf(eps=1e-3), "l2": L2(eps=1e-3), "l1": L1(eps=1e-3), "l0": L0(eps=1)}
LEAVE_EVERY = 5
# Where a value goes to Python, or a size depends on one.
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "repeat_interleave"}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}  # by a mask also


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("touchstone.attacks") and hasattr(module, "answers_at_once"):
            monkeypatch.setattr(module, "answers_at_once", lambda device: False)


class Waits(TorchDispatchMode):
    """Counts the operations that an accelerator is waited for, by the line of the attacks that they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in BY_INDEX and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
        lines = [f for f in traceback.extract_stack() if "/attacks/" in f.filename] if by_mask or name in WAITS else []
        if lines and not lines[-1].filename.endswith("sample_rng.py"):  # its seeds are numbers of the CPU anywhere
            self.counted[f"{lines[-1].filename}:{lines[-1].lineno}"] += 1
        return func(*args, **(kwargs or {}))


def climbs(num_steps: int) -> dict[str, Attack]:
    """Attacks of so many steps inside so little that nothing falls."""
    attacks: dict[str, Attack] = {
        "mifgsm": MIFGSM(threat=TINY["linf"], num_steps=num_steps),
        "carlini wagner": CarliniWagner(threat=TINY["l2"], num_steps=num_steps, num_rounds=1),
        "ead": EAD(threat=TINY["l1"], num_steps=num_steps, num_rounds=1),
        "l1 adam": L1Adam(threat=TINY["linf"], num_steps=num_steps, step_size=1e-4),
    }
    for name, threat in TINY.items():
        attacks[f"pgd, {name}"] = PGD(threat=threat, num_steps=num_steps)
        if name != "l0":
            attacks[f"apgd, {name}"] = APGD(threat=threat, num_steps=num_steps)
            attacks[f"fab, {name}"] = FAB(threat=threat, num_steps=num_steps)
            attacks[f"square, {name}"] = Square(threat=threat, num_queries=num_steps)
        if name in ("linf", "l2"):
            attacks[f"deepfool, {name}"] = DeepFool(threat=threat, num_steps=num_steps)
    return attacks


@pytest.mark.parametrize("name", climbs(1))
def test_no_step_waits(name: str, accelerated: None) -> None:
    net, x = small_net().eval(), images(8)
    y = own_labels(net, x)
    counted = []
    for num_steps in (20, 40):
        with Waits() as waits:
            climbs(num_steps)[name].perturb(net, x, y, SampleRng.numbered(len(x)))
        counted.append(waits.counted)
    more = counted[1] - counted[0]
    assert sum(more.values()) <= 20 / LEAVE_EVERY, more


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_who_leaves_late_ends_where_it_would_have(attack: Attack, request: pytest.FixtureRequest) -> None:
    net, x = small_net().eval(), images(24)
    y = own_labels(net, x)
    at_once = attack(net, x, y)
    request.getfixturevalue("accelerated")
    torch.testing.assert_close(attack(net, x, y), at_once, rtol=0, atol=1e-6)
