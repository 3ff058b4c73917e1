"""Nets that compute in float32 and end in float64, as some do for a mean of probabilities, are judged as others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from touchstone.attacks import PGD, Attack, Linf, Strongest, evaluate

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net
from .tokens_table import TOKEN_ATTACKS, text_net, texts

KINDS = [name for name in ATTACKS if "," not in name]
KINDS += ["pgd, restarts", "pgd, 2 eot samples", "fab, 2 classes, 2 restarts", "fab, class 2"]


def doubled(offset: float = 0.0) -> nn.Module:
    """Logits in float64, with as much added to all classes as float32 would drown them in."""
    net = small_net().eval()
    net.register_forward_hook(lambda _, images, logits: logits.double() + offset)
    return net


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_attack_turns_whom_it_turns_by_float32_logits(name: str) -> None:
    attack, x = ATTACKS[name], images(8)
    y = own_labels(small_net(), x)
    expected, found = (evaluate(model, x, y, {"a": attack}) for model in (small_net(), doubled()))
    assert int((expected.robust["a"] != found.robust["a"]).sum()) <= 1  # gradients are rounded otherwise
    assert len(found.warnings) == len(expected.warnings)


@pytest.mark.parametrize("name", ["hot flip", "hot flip, beam", "random flips", "pgd", "noise"])
def test_attacks_on_tokens_do_so_too(name: str) -> None:
    x, attack = texts(8), TOKEN_ATTACKS[name]
    ends_in_double = text_net()
    ends_in_double.register_forward_hook(lambda _, tokens, logits: logits.double())
    y = text_net()(x).argmax(1)
    expected, found = (evaluate(model, x, y, {"a": attack}) for model in (text_net(), ends_in_double))
    assert torch.equal(found.robust["a"], expected.robust["a"])


@pytest.mark.parametrize("attack", [PGD(threat=Linf(eps=0.05), num_steps=8), Strongest(threat=Linf(eps=0.05))])
def test_what_float64_tells_apart_is_not_lost(attack: Attack) -> None:
    x = images(24)
    y = own_labels(small_net(), x)
    expected, found = (evaluate(doubled(offset), x, y, {"a": attack}).robust["a"] for offset in (0.0, 1e9))
    assert 0 < int(expected.sum()) < len(x)
    assert torch.equal(found, expected)
