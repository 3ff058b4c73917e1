"""Signs of gradient masking in what other attacks do to samples that an attack left standing, or turned.

Each probe attacks some samples once more, `(probing, name, attack, rows) -> signs`, for an attack of that name.

Source: Carlini et al., "On evaluating adversarial robustness", 2019, sections 3 and 5; Croce and Hein, "Reliable
evaluation of adversarial robustness", 2020, section 4 (a loss that rescaled logits flatten).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core.attack import Attack
from ..core.threat import Threat
from ..objectives.losses import Margin
from ..objectives.untargeted import Untargeted
from ..pgd import PGD
from .probing import Probing

FEWEST = 4
"""Samples, below which they tell nothing."""

_FLAT = 15  # beyond 16.6 the probability of the true class is 1 in float32
_LEVEL = 1e-3  # below it all classes seem equally likely


def by_margin(probing: Probing, name: str, attack: Attack, rows: Tensor) -> list[str]:
    """What stands against a loss that flat or level logits blind should stand against the margin too."""
    if isinstance(attack.objective, Untargeted) and isinstance(attack.objective.loss, Margin):
        return []
    probe = PGD(threat=attack.threat, objective=Untargeted(loss=Margin()))
    turned = len(rows) - probing.num_standing(name, probe, rows)
    if turned <= max(1, 0.1 * len(rows)):
        return []
    logits = probing.look(probing.x[rows], probing.rng.sample_ids[rows], "before any attack")
    gap = float(-Margin()(logits, probing.y[rows]).median())
    if _LEVEL < gap < _FLAT:
        return []
    there = "softmax is flat" if gap >= _FLAT else "softmax hardly tells one class from another"
    return [
        f"{name}: 20 steps on the margin turned {turned} of {len(rows)} samples that it left standing; their "
        f"logits are {gap:.3g} apart, where {there}: attack with `Untargeted(loss=Margin())`"
    ]


def at_large_eps(probing: Probing, name: str, attack: Attack, rows: Tensor) -> list[str]:
    """At an eps within which the model is known to err, the same attack should find that it does.

    For one that climbs several losses the margin is tried as well, since either may be flat where the other leads on;
    what counts is the one that leaves fewer.
    """
    large = _reaching_grey(attack.threat, probing.x[rows])
    if large is None:
        return []
    rows = rows[_known_to_err(probing, large, rows, name)]
    if len(rows) < FEWEST:
        return []
    few = 0.1 * len(rows)
    objectives = [attack.objective, *([Untargeted(loss=Margin())] if attack.climbs_several_losses else [])]
    standing = len(rows)
    for objective in objectives:
        probe = PGD(threat=large, objective=objective)
        standing = min(standing, probing.num_standing(name, probe, rows, take=False))
        if standing <= few:
            return []
    return [
        f"{name}: at eps {float(large.eps):.3g}, {len(rows)} of the samples that it left standing can become plain "
        f"grey or like another sample, where the model errs; 20 steps along its gradients left {standing} of them "
        "standing: they do not lead to the errors that are there"
    ]


def by_another_start(probing: Probing, name: str, attack: Attack, rows: Tensor) -> list[str]:
    """What an attack has turned it should turn from other random starts too."""
    if len(rows) < FEWEST:
        return []
    standing = probing.num_standing(name, attack, rows, rng=probing.rng.fold(-1))
    if standing < max(3, 0.3 * len(rows)):
        return []
    return [
        f"{name}: from other random starts {standing} of {len(rows)} samples that it had turned stood again: "
        "its verdicts are chance; give it more restarts, or more steps"
    ]


def _known_to_err(probing: Probing, threat: Threat, rows: Tensor, name: str) -> Tensor:
    """For which samples a look around finds an error inside the threat: at grey, or towards another's picture."""
    x, y = probing.x[rows], probing.y[rows]
    others = (probing.prediction[None] != y[:, None]).float().argmax(1)  # the first that is taken for another class
    errs = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    for witness in (_grey(threat, x).expand_as(x), probing.x[others]):
        errs |= probing.errs(threat.project(witness, x), rows, f"in a probe of {name!r}")
    return errs


def _reaching_grey(threat: Threat, x: Tensor) -> Threat | None:
    """The threat with an eps at which every image may become plain grey; None where there is no such thing."""
    box = getattr(threat, "box", None)
    if box is None or getattr(threat, "mask", None) is not None:
        return None
    corner = torch.full_like(x[:1], box[0])
    return replace(threat, eps=float(threat.distance(_grey(threat, x), corner)[0]))  # type: ignore[type-var]


def _grey(threat: Threat, x: Tensor) -> Tensor:
    low, high = threat.box  # type: ignore[attr-defined]
    return torch.full_like(x[:1], (low + high) / 2)
