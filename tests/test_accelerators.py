"""Attacks ask an accelerator seldom who has finished, since they would wait for it, and none for float64 that it lacks.

Here a CPU is taken for one.
"""

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
from torch.utils._pytree import tree_leaves

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
    evaluate,
)
from touchstone.attacks.parts import minimal

from .attacks_table import ATTACKS, LINF, SMALL_L1, SMALL_L2
from .oracles import images, own_labels, small_net
from .tokens_table import TOKEN_ATTACKS, text_net, texts

TINY = {"linf": Linf(eps=1e-3), "l2": L2(eps=1e-3), "l1": L1(eps=1e-3), "l0": L0(eps=1)}
LEAVE_EVERY = 5
OF_FLOAT64 = "transfer, class 2, l2"  # whose net is
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
    monkeypatch.setattr(minimal, "_PROGRESS", math.inf)  # nobody leaves because its loss has settled
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


class WithoutFloat64(TorchDispatchMode):
    """Refuses float64 as a device that has none does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in tree_leaves(made)):
            raise TypeError(f"this device has no float64 ({func})")
        return made


@pytest.fixture
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("touchstone.attacks") and hasattr(module, "widest"):
            monkeypatch.setattr(module, "widest", lambda device: torch.float32)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != OF_FLOAT64])
def test_a_device_needs_no_float64(name: str, without_float64: None) -> None:
    net, x = small_net().eval(), images(8)
    with WithoutFloat64():
        evaluate(net, x, own_labels(net, x), {"a": ATTACKS[name]})


@pytest.mark.parametrize("attack", TOKEN_ATTACKS.values(), ids=TOKEN_ATTACKS)
def test_a_device_needs_no_float64_for_texts(attack: Attack, without_float64: None) -> None:
    net, x = text_net(), texts(8)
    with WithoutFloat64():
        evaluate(net, x, own_labels(net, x), {"a": attack})


def test_a_device_needs_no_float64_for_a_count_of_pixels(without_float64: None) -> None:
    with WithoutFloat64():
        assert float(L0(eps=torch.tensor([1, 2])).radius(images(2)).sum()) == 3
