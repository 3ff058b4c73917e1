"""An attack may not change what it is measured by: its threat and its objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Attack, Linf, Objective, SampleRng, Targeted, Threat, Untargeted, evaluate

from .judged import LINF


@dataclass(frozen=True, eq=False)
class Widening(Attack):
    """Widens what it is measured by, and then goes by that."""

    widen: Callable[[Any], object]
    threat: Threat
    objective: Objective = Untargeted()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        self.widen(self)
        return self.threat.project(x + 0.08, x)


@pytest.mark.parametrize(
    ("threat", "widen"),
    [
        (Linf(eps=torch.full((12,), 0.05)), lambda own: own.threat.eps.mul_(2)),
        (Linf(eps=torch.full((1,), 0.05)), lambda own: own.threat.eps.mul_(2)),
        (Linf(eps=0.1, mask=torch.arange(6).expand(1, 1, 6, 6) < 3), lambda own: own.threat.mask.fill_(True)),
        (Linf(eps=0.1, box=(0.3, 0.7)), lambda own: object.__setattr__(own.threat, "box", (0.0, 1.0))),
        (Linf(eps=0.05), lambda own: object.__setattr__(own, "threat", LINF)),
    ],
)
def test_an_attack_that_widens_its_threat_is_named(
    net: nn.Module, x: Tensor, y: Tensor, threat: Linf, widen: Callable[[Any], object]
) -> None:
    with pytest.raises(ValueError, match=r"attack 'a' changed its threat.*Linf\(eps=.*has become Linf\(eps="):
        evaluate(net, x.clamp(0.3, 0.7), y, {"a": Widening(widen, threat)})


class Counted(Linf):
    """Keeps something of its own, which is no part of what it allows."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        object.__setattr__(self, "num_calls", getattr(self, "num_calls", 0) + 1)
        return super().project(x_adv, x)


def test_a_threat_may_keep_what_is_none_of_its_fields(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = PGD(threat=Counted(eps=0.05), num_steps=2)
    assert len(evaluate(net, x, y, {"a": attack}, batch_size=2, probe_masking=False).robust["a"]) == len(x)
    assert attack.threat.num_calls > 0  # type: ignore[attr-defined]


def test_an_attack_that_changes_its_objective_is_named(net: nn.Module, x: Tensor, y: Tensor) -> None:
    easier = Widening(lambda own: own.objective.target.copy_(y), LINF, Targeted(target=(y + 1) % 4))
    with pytest.raises(ValueError, match=r"attack 'a' changed its objective"):
        evaluate(net, x, y, {"a": easier})


class Plain(Objective):
    """One of a user's own that is no dataclass, and holds a tensor: no class but its own will do."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, int(self.target)]

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return logits.argmax(1) == self.target


def test_an_objective_may_be_no_dataclass_and_is_watched_all_the_same(net: nn.Module, x: Tensor, y: Tensor) -> None:
    plain = Plain(torch.tensor(2))
    report = evaluate(net, x, y, {"a": PGD(threat=LINF, objective=plain)}, keep_adversarial=True)
    attacked = y == net.eval()(x).argmax(1)
    assert report.success["a"].any()
    assert torch.equal(report.success["a"], attacked & (net(report.x_adv["a"]).argmax(1) == 2))
    with pytest.raises(ValueError, match=r"attack 'a' changed its objective"):
        evaluate(net, x, y, {"a": Widening(lambda own: own.objective.target.fill_(1), LINF, plain)})
