"""On an accelerator attacks ask seldom who has finished, since they would wait for it; here a CPU is taken for one."""

from __future__ import annotations

import math
import sys
import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
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
    L1Adam,
    Linf,
    SampleRng,
    Square,
    carlini_wagner,
    ead,
)

from .attacks_table import ATTACKS, LINF, SMALL_L1, SMALL_L2
from .oracles import images, own_labels, small_net

TINY = {"linf": Linf(eps=1e-3), "l2": L2(eps=1e-3), "l1": L1(eps=1e-3), "l0": L0(eps=1)}
LEAVE_EVERY = 5
# Where a value goes to Python, or a size depends on one.
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "repeat_interleave"}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}  # by a mask also
LONGER = {
    f"square, 60 queries, {threat}": Square(threat=threat, num_queries=60) for threat in (LINF, SMALL_L2, SMALL_L1)
}


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("touchstone.attacks") and hasattr(module, "answers_at_once"):
            monkeypatch.setattr(module, "answers_at_once", lambda device: False)


def line_of_the_attacks() -> str | None:
    """Which line of the attacks has called what is running."""
    lines = [frame for frame in traceback.extract_stack() if "/attacks/" in frame.filename]
    return f"{lines[-1].filename}:{lines[-1].lineno}" if lines else None


class ReadValues(TorchDispatchMode):
    """Counts the operations that an accelerator is waited for, by the line of the attacks that they are of."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in BY_INDEX and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        line = line_of_the_attacks() if by_mask or name in WAITS else None
        if line is not None and "sample_rng.py" not in line:  # whose seeds are numbers of the CPU anywhere
            self.counted[line] += 1
        return func(*args, **(kwargs or {}))


class CopiedNumbers(TorchFunctionMode):
    """Counts the numbers that are copied to a device, which is waited for."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        copies = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        line = line_of_the_attacks() if copies and (kwargs or {}).get("device") is not None else None
        if line is not None:
            self.counted[line] += 1
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
    return attacks


@pytest.mark.parametrize("name", climbs(1))
def test_no_step_waits(name: str, accelerated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (carlini_wagner, ead):
        monkeypatch.setattr(module, "_PROGRESS", math.inf)  # nobody leaves because its loss has settled
    net, x = small_net().eval(), images(8)
    y, num_calls = own_labels(net, x), 0

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal num_calls
            num_calls += 1
            return net(x)

    counted, calls = [], []
    for num_steps in (20, 40):
        num_calls, waits = 0, Counter[str]()
        with ReadValues(waits), CopiedNumbers(waits):
            climbs(num_steps)[name].perturb(Counting(), x, y, SampleRng.numbered(len(x)))
        counted.append(waits)
        calls.append(num_calls)
    assert calls[1] - calls[0] >= 20
    more = counted[1] - counted[0]
    assert sum(more.values()) <= 20 / LEAVE_EVERY, more


@pytest.mark.parametrize("attack", [*ATTACKS.values(), *LONGER.values()], ids=[*ATTACKS, *LONGER])
def test_who_leaves_late_ends_where_it_would_have(attack: Attack, request: pytest.FixtureRequest) -> None:
    net, x = small_net().eval(), images(24)
    y = own_labels(net, x)
    at_once = attack(net, x, y)
    request.getfixturevalue("accelerated")
    torch.testing.assert_close(attack(net, x, y), at_once, rtol=0, atol=1e-6)
