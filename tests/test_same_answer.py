"""Two answers are the same one where they differ by what the kernels behind them may round, and no further."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from touchstone.attacks.core.same_answer import same_in_equal_batches, same_in_other_batches

LOGITS = torch.tensor([[20.0, 0.1, -3.0], [-7.0, 12.0, 0.4]])


@pytest.mark.parametrize("same", [same_in_equal_batches, same_in_other_batches])
def test_an_answer_is_the_same_as_itself_and_as_another_no_longer(same: Callable[[Tensor, Tensor], bool]) -> None:
    assert same(LOGITS, LOGITS.clone())
    assert same(LOGITS, LOGITS * (1 + 1e-4))
    assert not same(LOGITS, LOGITS + 0.1)


def test_in_other_batches_a_small_logit_may_be_as_far_off_as_the_largest() -> None:
    moved = LOGITS.clone()
    moved[0, 1] += 0.01
    assert same_in_other_batches(LOGITS, moved)
    assert not same_in_equal_batches(LOGITS, moved)


def test_in_other_batches_a_net_of_half_precision_may_differ_in_its_last_bits() -> None:
    assert same_in_other_batches(LOGITS.bfloat16(), LOGITS.bfloat16() * (1 + 2**-7))
    assert not same_in_other_batches(LOGITS, LOGITS * (1 + 2**-7))


def test_in_equal_batches_small_logits_are_told_apart_as_large_ones_are() -> None:
    moved = LOGITS.clone()
    moved[0, 1] += 0.1
    for scale in (1.0, 1e-2, 1e-6):
        assert not same_in_equal_batches(scale * LOGITS, scale * moved)
        assert same_in_equal_batches(scale * LOGITS, scale * (LOGITS + 1e-5))
    assert same_in_equal_batches(LOGITS[:0], LOGITS[:0])


def test_in_equal_batches_a_logit_of_what_is_never_said_excuses_no_other() -> None:
    banned, moved = torch.cat([LOGITS, torch.full((2, 1), -1e9)], 1), LOGITS + 0.1
    assert not same_in_equal_batches(banned, torch.cat([moved, torch.full((2, 1), -1e9)], 1))
    assert same_in_equal_batches(banned, banned.clone())
