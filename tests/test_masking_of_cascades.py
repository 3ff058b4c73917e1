"""Signs of gradient masking under attacks that climb several losses: one that is flat is no sign where others lead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    Attack,
    AutoAttack,
    CrossEntropy,
    InBfloat16,
    Linf,
    Margin,
    SampleRng,
    Strongest,
    Threat,
    Untargeted,
    evaluate,
)
from touchstone.attacks.core.attack_sequence import attack_in_sequence
from touchstone.attacks.core.gain import gain_of

from .masking_nets import Clamped, Quantised, Tempered, warnings_of
from .oracles import images, own_labels, small_net


@dataclass(frozen=True, kw_only=True)
class Own(Attack):
    """A cascade as a user may write one."""

    climbs_several_losses = True
    threat: Threat

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        losses = Margin(), CrossEntropy()
        attacks = [PGD(threat=self.threat, objective=Untargeted(loss=loss), num_restarts=3) for loss in losses]
        return attack_in_sequence(attacks, gain_of(model, self.objective, y), model, x, y, rng)


CASCADES: dict[str, Attack] = {
    "strongest": Strongest(threat=Linf(eps=0.05)),
    "wrapped": InBfloat16(attack=Strongest(threat=Linf(eps=0.05))),
    "autoattack": AutoAttack(threat=Linf(eps=0.05), num_steps=20, num_queries=200),
    "own": Own(threat=Linf(eps=0.05)),
}


@pytest.mark.parametrize("name", CASCADES)
def test_logits_that_flatten_one_loss_are_no_sign_where_an_attack_climbs_others_too(name: str) -> None:
    """Its verdicts are those on the net itself, whose logits are 3000 times smaller."""
    net, x = small_net().eval(), images(48)
    y, attacks = own_labels(net, x), {name: CASCADES[name]}
    one_loss = {"pgd": PGD(threat=Linf(eps=0.05))}
    assert any("exactly zero" in sign for sign in evaluate(Tempered(net).eval(), x, y, one_loss).warnings)
    plain, tempered = evaluate(net, x, y, attacks), evaluate(Tempered(net).eval(), x, y, attacks)
    assert torch.equal(plain.robust[name], tempered.robust[name])
    assert tempered.warnings == []


@pytest.mark.parametrize("eps", [0.02, 0.05])
def test_logits_that_flatten_the_margin_are_no_sign_where_an_attack_climbs_cross_entropy_too(eps: float) -> None:
    assert warnings_of(Clamped(small_net()), {"strongest": Strongest(threat=Linf(eps=eps))}) == []


@pytest.mark.parametrize("name", CASCADES)
def test_a_net_that_blinds_every_loss_shows_so_under_an_attack_that_climbs_several(name: str) -> None:
    warnings = warnings_of(Quantised(small_net()), {name: CASCADES[name]})
    for sign in ("100% of its gradients were exactly zero", "they do not lead to the errors that are there"):
        assert any(sign in warning for warning in warnings), warnings
