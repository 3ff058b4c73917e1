"""A model is never asked about no samples at all: `x.view(x.size(0), -1)`, which many hold, refuses an empty batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, evaluate

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net
from .tokens_table import TOKEN_ATTACKS, text_net, texts

FAR = 100.0
"""By how much a class leads where no attack changes that."""

every_case = pytest.mark.parametrize("case", ["some fall", "all have fallen at once", "none falls"])


def refuse(module: nn.Module, args: tuple[Any, ...]) -> None:
    if not len(args[0]):
        raise RuntimeError("asked about an empty batch")


def check(attack: Attack, net: nn.Module, last_bias: Tensor, x: Tensor, case: str) -> None:
    """Runs the attack where so many fall, on a net that refuses empty batches."""
    y = own_labels(net, x)
    net.register_forward_pre_hook(refuse)
    with torch.no_grad():
        if case == "all have fallen at once":  # the judge would not attack them
            last_bias[2] += FAR
            attack(net, x, torch.zeros_like(y))
        elif case == "none falls":
            last_bias[1] += FAR
            y = torch.ones_like(y)
    evaluate(net, x, y, {"a": attack}, batch_size=5)


@every_case
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_attack_asks_about_no_images(attack: Attack, case: str) -> None:
    net = small_net().eval()
    check(attack, net, net[-1].bias, images(7), case)


@every_case
@pytest.mark.parametrize("attack", TOKEN_ATTACKS.values(), ids=TOKEN_ATTACKS.keys())
def test_no_attack_asks_about_no_texts(attack: Attack, case: str) -> None:
    net = text_net()
    check(attack, net, net.read_out.bias, texts(7), case)
