"""`Diagnosis`: short attacks on a few samples that show where gradients, and not robustness, made an attack fail.

Source: Carlini et al., "On evaluating adversarial robustness", 2019, sections 3 and 5; Athalye, Carlini, Wagner,
"Obfuscated gradients give a false sense of security", 2018, section 3.1; Croce and Hein, "Reliable evaluation of
adversarial robustness", 2020, section 4 (a loss that rescaled logits flatten).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.ascend import ascend, cosine_steps
from ..core.attack import Attack
from ..core.checks import are_broken
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from ..objectives.losses import Margin
from ..objectives.untargeted import Untargeted
from ..parts.jumps import Jumps
from ..pgd import PGD
from ..threats.ball import Ball
from ..threats.l1 import L1
from ..threats.l2 import L2
from .forwards import Forwards
from .meter import Cost, metered
from .running import naming

NUM_PROBED = 16
NUM_LOOKED_AT = 32
NUM_CLIMBING = 8
_FEWEST_SURVIVORS = 4
_SAME = 1e-3  # of two answers, the difference that they may have
_SMALL_PART = 0.05
_ALIKE_HALF_WAY = 0.25  # the cosine of two gradients
_FLAT = 15  # beyond 16.6 the probability of the true class is 1 in float32
_CLIMB = 4  # steps, for a few samples: where a model jumps, hardly one is left out
_LEVEL = 1e-3  # below it all classes seem equally likely


class Diagnosis:
    """Looks for signs of masking on a few samples of an evaluation.

    Args:
        model: images to logits, in the judge's context.
        x, y, logits: the samples, their classes and the logits before any attack.
        rng: noise per sample.
        look: the judge's own forwards.

    Attributes:
        cost: what the probes have passed through the model.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, rng: SampleRng, look: Forwards) -> None:
        self._model, self._x, self._y, self._logits, self._rng, self._look = model, x, y, logits, rng, look
        self._look_far = look.unchecked()  # beyond the threat a model may give what are no numbers
        self.cost = Cost()

    def of_the_model(self, changed: Sequence[str], *, look_again: bool = True) -> list[str]:
        """Whether the model gives the same answer again, and in another batch.

        Args:
            changed: what of its own state the model changed in its forward.
            look_again: whether to ask it.
        """
        signs = []
        if changed:
            signs.append(
                f"the model changes its own state in evaluation mode ({changed[0]}): its answers depend on how often "
                "it was asked"
            )
        if len(self._logits) >= NUM_PROBED and bool(((self._logits >= 0) & (self._logits <= 1)).all()):
            signs.append(
                "the model's outputs all lie in [0, 1]: if they are probabilities of each class by itself, leave out "
                "the sigmoid that gives them, since it flattens the gradients"
            )
        x, ids = self._x[:NUM_LOOKED_AT], self._rng.sample_ids[:NUM_LOOKED_AT]
        if not look_again or not len(x):
            return signs
        if _alike(self._look.elsewhere(x, ids, "a second time"), self._logits[:NUM_LOOKED_AT]):
            return signs
        once, again = (self._look(x, ids, "a third time") for _ in range(2))
        if not _alike(once, again):
            signs.append(
                "the model gives another answer when it is asked again: it draws random numbers, so that an attack "
                "needs their expectation (`num_eot_samples` of PGD and APGD, `AutoAttack(version='rand')`), and each "
                "verdict is one draw"
            )
        else:
            signs.append(
                "the model's answer for an image depends on the other images of the batch, in evaluation mode too: "
                "look for BatchNorm without running statistics, or a norm over the batch"
            )
        return signs

    def of_the_attacks(self, attacks: Mapping[str, Attack], robust: Mapping[str, Tensor]) -> list[str]:
        """Tries what a gradient attack left standing by other means, once for each threat."""
        signs, tried, most = [], set(), min(NUM_PROBED, self._look.batch_size)
        by_gradient = [
            (name, attack)
            for kind in ("gradient", "one step")
            for name, attack in attacks.items()
            if attack.kind == kind and isinstance(attack.objective, Untargeted)
        ]
        for name, attack in by_gradient:
            threat = repr(attack.threat)
            if threat in tried:
                continue
            tried.add(threat)
            if not self._x.is_floating_point() or attack.enter(self._model, self._x)[1] is not self._model:
                continue  # the probes move the samples themselves, by degrees
            peers = [robust[peer] for peer, other in attacks.items() if repr(other.threat) == threat]
            standing = torch.stack(peers).all(0).nonzero()[:, 0][:most]
            if len(standing) >= _FEWEST_SURVIVORS:
                signs += [*self._by_margin(name, attack, standing), *self._at_large_eps(name, attack, standing)]
            correct = self._logits.argmax(1) == self._y
            if correct.any() and self._is_differentiable():
                if attack.kind == "gradient":
                    signs += self._half_way(name, attack.threat, standing)
                signs += self._near_by(name, attack.threat, correct.nonzero()[:, 0][:most])
                signs += self._in_jumps(name, attack.threat, correct.nonzero()[:, 0][: min(NUM_CLIMBING, most)])
            fallen = correct & ~robust[name]
            signs += self._by_another_start(name, attack, fallen.nonzero()[:, 0][:most])
        return signs

    def _by_margin(self, name: str, attack: Attack, rows: Tensor) -> list[str]:
        if isinstance(attack.objective, Untargeted) and isinstance(attack.objective.loss, Margin):
            return []
        probe = PGD(threat=attack.threat, objective=Untargeted(loss=Margin()))
        turned = len(rows) - self._num_standing(name, probe, rows)
        gap = float(-Margin()(self._logits[rows], self._y[rows]).median())
        if turned <= max(1, 0.1 * len(rows)) or _LEVEL < gap < _FLAT:
            return []
        there = "softmax is flat" if gap >= _FLAT else "softmax hardly tells one class from another"
        return [
            f"{name}: 20 steps on the margin turned {turned} of {len(rows)} samples that it left standing; their "
            f"logits are {gap:.3g} apart, where {there}: attack with `Untargeted(loss=Margin())`"
        ]

    def _near_by(self, name: str, threat: Threat, rows: Tensor) -> list[str]:
        """Within a small part of eps the gradient of the margin should keep its direction, and raise the margin."""
        if not isinstance(threat, Ball):  # whose eps is a length in pixels
            return []
        if isinstance(threat, L1):
            threat = replace(threat, pixels_per_eps=L1.pixels_per_eps)  # steps along the gradient itself are longer
        num_astray = 0

        def go_a_little(part_of: slice) -> None:
            nonlocal num_astray
            some = rows[part_of]
            x, y, part = self._x[some], self._y[some], threat.take(some)
            start = part.start(x, self._rng.take(some).fold(-2))
            with metered(self._model) as meter:
                slopes = (self._slope(points, y) for points in (x, x + _SMALL_PART * (start - x)))
                gains, grads = zip(*slopes, strict=True)
                can_move = part.clip(x + part.width * grads[0].sign()) != x
                step = _SMALL_PART * part.radius(x) * part.direction(torch.where(can_move, grads[0], 0))
                after = Margin()(self._model(part.project(x + step, x)).detach(), y)
            one, other = (L2(eps=1).direction(grad).flatten(1) for grad in grads)
            turns = torch.cosine_similarity(one, other) < 0.5
            num_astray += int((turns | (after <= gains[0])).sum())
            self.cost += meter.cost(0.0)

        self._look.in_parts(len(rows), go_a_little)
        if num_astray <= max(1, 0.25 * len(rows)):
            return []
        return [
            f"{name}: within {_SMALL_PART:.0%} of eps, the gradient of the margin turned round or did not raise it for "
            f"{num_astray} of {len(rows)} samples: gradients are shattered, or not those of the forward; try a "
            "black box"
        ]

    def _half_way(self, name: str, threat: Threat, rows: Tensor) -> list[str]:
        """Where many steps fail to lead out, the gradient of the margin should not point elsewhere half an eps on."""
        if not isinstance(threat, Ball) or len(rows) < _FEWEST_SURVIVORS:
            return []
        num_astray = 0

        def look_at_some(part_of: slice) -> None:
            nonlocal num_astray
            some = rows[part_of]
            x, y, part = self._x[some], self._y[some], threat.take(some)
            start = part.start(x, self._rng.take(some).fold(-2))
            with metered(self._model) as meter:
                slopes = [self._slope(points, y) for points in (x, x + 0.5 * (start - x))]
            one, other = (L2(eps=1).direction(grad).flatten(1) for _, grad in slopes)
            have_direction = one.any(1) & other.any(1)
            num_astray += int((have_direction & (torch.cosine_similarity(one, other) < _ALIKE_HALF_WAY)).sum())
            self.cost += meter.cost(0.0)

        self._look.in_parts(len(rows), look_at_some)
        if num_astray <= 0.5 * len(rows):
            return []
        return [
            f"{name}: half an eps from {num_astray} of {len(rows)} samples that it left standing the gradient of the "
            "margin points elsewhere, so that its steps lead nowhere: try a black box, or gradients averaged around "
            "each point"
        ]

    def _slope(self, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The margin by which the samples are wrong, `(N,)`, and its gradient, like `points`."""
        leaf = points.clone().requires_grad_()
        gain = Margin()(self._model(leaf), y)
        return gain.detach(), torch.autograd.grad(gain.sum(), leaf)[0]

    def _is_differentiable(self) -> bool:
        """Whether the logits depend on the samples by a path that has a gradient, if only one of zeros."""
        with metered(self._model) as meter:
            depends = self._model(self._x[:1].clone().requires_grad_()).requires_grad
        self.cost += meter.cost(0.0)
        return depends

    def _in_jumps(self, name: str, threat: Threat, rows: Tensor) -> list[str]:
        """Along a climb of the margin, its gradients should explain most of how it changes."""
        if not isinstance(threat, Ball):
            return []
        num_jumping = 0

        def climb_some(part_of: slice) -> None:
            nonlocal num_jumping
            some = rows[part_of]
            x, y, part = self._x[some], self._y[some], threat.take(some)

            def margin(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
                gain = Margin()(self._model(points), y[which])
                return gain, gain.detach() > 0

            jumps, everyone = Jumps(x), torch.arange(len(x), device=x.device)
            with metered(self._model) as meter:
                end, _ = ascend(
                    jumps.watched(margin, everyone),
                    x,
                    start=part.start(x, self._rng.take(some).fold(-3)),
                    threat=part,
                    num_steps=_CLIMB,
                    step_size=cosine_steps(_CLIMB),
                    early_stop=False,
                )
                found = jumps.found(-Margin()(self._logits[some], y))
                if found.any():  # and does not answer at random
                    once, again = (margin(end, everyone)[0].detach() for _ in range(2))
                    found &= (once - again).abs() <= _SAME * once.abs()
            num_jumping += int(found.sum())
            self.cost += meter.cost(0.0)

        self._look.in_parts(len(rows), climb_some)
        if num_jumping <= max(1, 0.25 * len(rows)):
            return []
        return [
            f"{name}: in {_CLIMB} steps the margin of {num_jumping} of {len(rows)} samples changed more by jumps than "
            "along its gradients, which do not see what lies beyond a jump; try a black box"
        ]

    def _at_large_eps(self, name: str, attack: Attack, rows: Tensor) -> list[str]:
        large = _reaching_grey(attack.threat, self._x[rows])
        if large is None:
            return []
        rows = rows[self._known_to_err(large, rows, name)]
        if len(rows) < _FEWEST_SURVIVORS:
            return []
        standing = self._num_standing(name, PGD(threat=large, objective=attack.objective), rows, take=False)
        if standing <= 0.1 * len(rows):
            return []
        return [
            f"{name}: at eps {float(large.eps):.3g}, {len(rows)} of the samples that it left standing can become plain "
            f"grey or like another sample, where the model errs; 20 steps along its gradients left {standing} of them "
            "standing: they do not lead to the errors that are there"
        ]

    def _known_to_err(self, threat: Threat, rows: Tensor, name: str) -> Tensor:
        """For which samples a look around finds an error inside the threat: at grey, or towards another's picture."""
        x, y = self._x[rows], self._y[rows]
        predicted = self._logits.argmax(1)
        others = (predicted[None] != y[:, None]).float().argmax(1)  # the first that is taken for another class
        errs = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        for witness in (_grey(threat, x).expand_as(x), self._x[others]):
            there = self._look_far(threat.project(witness, x), self._rng.sample_ids[rows], f"in a probe of {name!r}")
            errs |= (there.argmax(1) != y) & ~are_broken(there)
        return errs

    def _by_another_start(self, name: str, attack: Attack, rows: Tensor) -> list[str]:
        if len(rows) < _FEWEST_SURVIVORS:
            return []
        standing = self._num_standing(name, attack, rows, rng=self._rng.fold(-1))
        if standing < max(3, 0.3 * len(rows)):
            return []
        return [
            f"{name}: from other random starts {standing} of {len(rows)} samples that it had turned stood again: "
            "its verdicts are chance; give it more restarts, or more steps"
        ]

    def _num_standing(
        self, name: str, attack: Attack, rows: Tensor, *, take: bool = True, rng: SampleRng | None = None
    ) -> int:
        """How many of the samples are right after another attack; where logits are not finite it has turned them."""
        num_standing, noise = 0, rng or self._rng

        def attack_some(part_of: slice) -> None:
            nonlocal num_standing
            some = rows[part_of]
            x, y, mine = self._x[some], self._y[some], noise.take(some)
            part = attack.take(some) if take else attack
            with metered(self._model) as meter:
                x_adv = naming(name, part, self._model, x.clone(), y.clone(), rng=mine)
            logits = self._look_far(x_adv.detach(), mine.sample_ids, f"after a probe of attack {name!r}")
            num_standing += int(((logits.argmax(1) == y) & ~are_broken(logits)).sum())
            self.cost += meter.cost(0.0)

        self._look.in_parts(len(rows), attack_some)
        return num_standing


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _SAME * (1 + one.abs().max()))


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
