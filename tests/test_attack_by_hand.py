"""An attack that is called by hand, without the judge, checks what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, CrossEntropy, Margin, SampleRng, Targeted, Universal, Untargeted

from .judged import LINF, PGD_5


def test_an_attack_called_by_hand_checks_its_labels(net: nn.Module, x: Tensor, y: Tensor) -> None:
    assert torch.equal(PGD_5(net, x, y.int()), PGD_5(net, x, y))
    for attack in (PGD_5, PGD(threat=LINF, objective=Untargeted(loss=Margin()))):
        with pytest.raises(ValueError, match="labels must be classes of the model, 0 to 3; sample 0 has the label"):
            attack(net, x, y + 4)


def test_an_attack_called_by_hand_checks_its_targets_and_negative_labels(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """torch's cross-entropy passes over -100, so that the gradient would be 0 and noise come back."""
    with pytest.raises(ValueError, match="labels must be classes of the model, 0 or more, got -100"):
        PGD_5(net, x, torch.full_like(y, -100))
    for loss in (CrossEntropy(), Margin()):
        beyond = PGD(threat=LINF, objective=Targeted(torch.full_like(y, 9), loss=loss))
        with pytest.raises(ValueError, match=r"Targeted\(target=9\): the model has 4 classes"):
            beyond(net, x, y)
    assert Targeted(np.int64(3)).target == 3


@pytest.mark.parametrize(
    ("rng", "message"),
    [
        (0, r"rng must be SampleRng\(seed, sample_ids\), such as SampleRng.numbered\(12, seed=0\), or None, got 0"),
        (torch.Generator(), r"rng must be SampleRng\(seed, sample_ids\)"),
        (SampleRng.numbered(5), "rng must have one id for each of 12 samples, got 5"),
    ],
)
def test_an_attack_called_by_hand_checks_its_noise(
    net: nn.Module, x: Tensor, y: Tensor, rng: Any, message: str
) -> None:
    for call in (PGD_5, Universal(threat=LINF).prepare):
        with pytest.raises(ValueError, match=message):
            call(net, x, y, rng=rng)
