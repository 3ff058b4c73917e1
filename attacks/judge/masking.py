"""Signs of gradient masking: that an attack failed because it was blind, and not because the model is robust.

Source: Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", 2018, section 3.1;
Carlini et al., "On evaluating adversarial robustness", 2019, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.attack import Attack
from ..objectives.untargeted import Untargeted
from .meter import Cost

_MANY_GRADIENTS = 0.05
_MOST_GRADIENTS = 0.5
# The second should turn at least as many samples as the first. A black box may well be weaker than one step.
_ORDER = {
    ("control", "one step"),
    ("control", "black box"),
    ("control", "gradient"),
    ("one step", "gradient"),
    ("black box", "gradient"),
}


def signs_of_masking(
    attacks: Mapping[str, Attack], num_robust: Mapping[str, int], cost: Mapping[str, Cost], num_samples: int
) -> list[str]:
    """One sentence for each sign in what an evaluation has measured anyway."""
    signs = []
    for name, counted in cost.items():
        zero = counted.num_zero_gradients / max(1, counted.num_backwards)
        # Where one of several losses is flat, as cross-entropy is at large logits, the others lead on.
        too_many = _MOST_GRADIENTS if attacks[name].climbs_several_losses else _MANY_GRADIENTS
        if zero > too_many and not attacks[name].flat_when_reached:
            signs.append(
                f"{name}: {zero:.0%} of its gradients were exactly zero, so that it could not see where to go; "
                "its accuracy is not robustness. Try a margin loss, or a black box"
            )
        if counted.num_broken_gradients:
            signs.append(
                f"{name}: {counted.num_broken_gradients} of its {counted.num_backwards} gradients exploded, or were "
                "not finite"
            )
    for weak, strong in _comparable_pairs(attacks):
        gap = num_robust[strong] - num_robust[weak]
        if gap > max(1, 0.01 * num_samples):
            signs.append(
                f"{weak} ({attacks[weak].kind}) turned {gap} samples more than {strong} ({attacks[strong].kind}) "
                "inside the same threat: the gradients mislead, or the stronger attack has too few steps"
            )
    return signs


def _comparable_pairs(attacks: Mapping[str, Attack]) -> list[tuple[str, str]]:
    """Untargeted attacks inside the same threat, the one that should be weaker first."""
    names = [name for name, attack in attacks.items() if isinstance(attack.objective, Untargeted)]
    return [
        (weak, strong)
        for weak in names
        for strong in names
        if (attacks[weak].kind, attacks[strong].kind) in _ORDER
        and repr(attacks[weak].threat) == repr(attacks[strong].threat)
    ]
