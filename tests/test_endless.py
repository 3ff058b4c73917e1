"""`Endless` changes whether an objective is reached, and nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from touchstone.attacks import Margin, NextToken, SampleRng, Surprise, Targeted, Untargeted
from touchstone.attacks.core.objective import Objective
from touchstone.attacks.objectives.endless import Endless

LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
Y = LOGITS.argmin(1)  # wrong, each of them
TEXT_LOGITS, NEXT = LOGITS[:, None].expand(5, 3, 4).contiguous(), Y[:, None].expand(5, 3)


@dataclass(frozen=True)
class AmongTwo(Untargeted):
    """An attacker to whom the second likeliest class is right as well."""

    def correct(self, logits: Tensor, y: Tensor) -> Tensor:
        return (logits.topk(2, dim=1).indices == y[:, None]).any(1)


@pytest.mark.parametrize("objective", [Untargeted(), Untargeted(loss=Margin()), Targeted(target=2), AmongTwo()])
def test_it_climbs_what_the_objective_climbs_and_nothing_reaches_it(objective: Objective) -> None:
    second = LOGITS.topk(2, dim=1).indices[:, 1]
    endless = Endless(objective)
    assert torch.equal(endless.gain(LOGITS, Y), objective.gain(LOGITS, Y))
    assert torch.equal(endless.correct(LOGITS, second), objective.correct(LOGITS, second))
    assert objective.reached(LOGITS, Y).any()
    assert endless.reached(LOGITS, Y).tolist() == [False] * 5


@pytest.mark.parametrize("objective", [Surprise(), NextToken(2)])
def test_of_texts_it_is_one_for_language_models_with_one_answer_for_each(objective: Objective) -> None:
    endless = Endless(objective)
    assert endless.of_texts
    assert not Endless(Untargeted()).of_texts
    assert torch.equal(endless.gain(TEXT_LOGITS, NEXT), objective.gain(TEXT_LOGITS, NEXT))
    assert endless.reached(TEXT_LOGITS, NEXT).tolist() == [False] * 5
    with pytest.raises(ValueError, match="is for language models, which `evaluate_language` measures"):
        endless.check_classes(4)


def test_choices_of_the_objective_are_made_and_cut_to_samples() -> None:
    aimed = Endless(Targeted(target="runner_up")).aim(lambda: LOGITS, LOGITS.argmax(1), SampleRng.numbered(5))
    rows = torch.tensor([3, 1])
    assert torch.equal(aimed.take(rows).objective.target, LOGITS.topk(2, dim=1).indices[rows, 1])  # type: ignore[attr-defined]
    assert not aimed.take(rows).of_texts
