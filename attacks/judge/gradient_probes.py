"""Signs of gradient masking in the gradients themselves: whether they show where the margin rises, and how far.

Each probe looks at some samples from near by, `(probing, name, threat, rows) -> signs`, for the attack `name` inside
the threat.

Source: Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.ascend import ascend, cosine_steps
from ..core.rounding import rounding
from ..core.threat import Threat
from ..objectives.losses import Margin
from ..parts.jumps import Jumps
from ..parts.unexplained import unexplained
from ..threats.ball import Ball
from ..threats.l1 import L1
from ..threats.l2 import L2
from .probing import Probing

_SMALL_PART = 0.05
_SAME_DIRECTION = 0.5  # the cosine of two gradients within that part
_ALIKE_HALF_WAY = 0.25  # and half an eps apart
_UNSAID = 0.5  # of a change, what the gradients at its ends do not say
_CLIMB = 4  # steps, for a few samples: where a model jumps, hardly one is left out
_SAME = 1e-3  # of two answers, the difference that they may have


def near_by(probing: Probing, name: str, threat: Threat, rows: Tensor) -> list[str]:
    """Within a small part of eps the gradient of the margin should keep its direction, raise it, and say its change."""
    if not isinstance(threat, Ball):  # which has the radius, the width and the box that are used here
        return []
    if isinstance(threat, L1):
        threat = replace(threat, pixels_per_eps=L1.pixels_per_eps)  # steps along the gradient itself are longer

    def go_a_little(some: Tensor) -> int:
        x, y, part = probing.x[some], probing.y[some], threat.take(some)
        with probing.counted():
            gains, grads, aside, rounded = _look_aside(probing, part, some, _SMALL_PART)
            can_move = part.clip(x + part.width * grads[0].sign()) != x
            step = _SMALL_PART * part.radius(x) * part.direction(torch.where(can_move, grads[0], 0))
            end = part.project(x + step, x)
            after = Margin()(probing.model(end).detach(), y).to(end.dtype)
        turns = _cosine(*grads) < _SAME_DIRECTION
        said = (grads[0] * (end - x)).flatten(1).sum(1)
        # More than rounding, or so little that even the whole of eps would be lost in the margin.
        can_tell = (said > rounded) | (end != x).flatten(1).any(1) & (gains[0] + said / _SMALL_PART == gains[0])
        return int((turns | can_tell & (after <= gains[0]) | _is_unsaid(gains, grads, aside, rounded)).sum())

    num_astray = probing.in_parts(rows, go_a_little)
    if num_astray <= max(1, 0.33 * len(rows)):
        return []
    return [
        f"{name}: within {_SMALL_PART:.0%} of eps, the gradient of the margin turned round, did not raise it, or did "
        f"not say how it changed, for {num_astray} of {len(rows)} samples: gradients are shattered, or not those of "
        "the forward; try a black box"
    ]


def half_way(probing: Probing, name: str, threat: Threat, rows: Tensor) -> list[str]:
    """Where many steps fail to lead out, gradients of the margin half an eps apart should agree, and say its change."""
    if not isinstance(threat, Ball):
        return []

    def look_at_some(some: Tensor) -> int:
        with probing.counted():
            gains, grads, aside, rounded = _look_aside(probing, threat.take(some), some, 0.5)
        one, other = (grad * (aside != 0) for grad in grads)  # a pixel at the end of the box may stay, as its gradient
        have_direction = one.flatten(1).any(1) & other.flatten(1).any(1)
        elsewhere = have_direction & (_cosine(one, other) < _ALIKE_HALF_WAY)
        return int((elsewhere | _is_unsaid(gains, grads, aside, rounded)).sum())

    num_astray = probing.in_parts(rows, look_at_some)
    if num_astray <= max(4, 0.75 * len(rows)):
        return []
    return [
        f"{name}: half an eps from {num_astray} of {len(rows)} samples that it left standing the gradient of the "
        "margin points elsewhere, or does not say how it changed, so that steps lead nowhere: try a black box, or "
        "gradients averaged around each point"
    ]


def in_jumps(probing: Probing, name: str, threat: Threat, rows: Tensor) -> list[str]:
    """Along a climb of the margin, its gradients should explain most of how it changes."""
    if not isinstance(threat, Ball):
        return []

    def climb_some(some: Tensor) -> int:
        x, y, part = probing.x[some], probing.y[some], threat.take(some)
        rounded = []  # of everyone, at each step

        def margin(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            logits = probing.model(points)
            rounded.append(rounding(logits.detach().to(points.dtype)))
            gain = Margin()(logits, y[which]).to(points.dtype)
            return gain, gain.detach() > 0

        jumps, everyone = Jumps(x), torch.arange(len(x), device=x.device)
        with probing.counted():
            end, _ = ascend(
                jumps.watched(margin, everyone),
                x,
                start=part.start(x, probing.rng.take(some).fold(-3)),
                threat=part,
                num_steps=_CLIMB,
                step_size=cosine_steps(_CLIMB),
                early_stop=False,
            )
            found = jumps.found(-margin(x, everyone)[0].detach(), torch.stack(rounded).mean(0))
            if found.any():  # and does not answer at random
                once, again = (margin(end, everyone)[0].detach() for _ in range(2))
                found &= (once - again).abs() <= _SAME * once.abs()
        return int(found.sum())

    num_jumping = probing.in_parts(rows, climb_some)
    if num_jumping <= max(1, 0.25 * len(rows)):
        return []
    return [
        f"{name}: in {_CLIMB} steps the margin of {num_jumping} of {len(rows)} samples changed more by jumps than "
        "along its gradients, which do not see what lies beyond a jump; try a black box"
    ]


def _look_aside(
    probing: Probing, threat: Threat, some: Tensor, part: float
) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor, Tensor]:
    """What is seen at the samples and a part of eps beside them.

    Returns:
        The margins and the gradients at both, `(N,)` and `(N, ...)`; the way, `(N, ...)`, as rounded, since a small
        part of a small eps is lost in the pixels; and the margin's rounding, `(N,)`.
    """
    x, y = probing.x[some], probing.y[some]
    beside = x + part * (threat.start(x, probing.rng.take(some).fold(-2)) - x)
    gains, grads, rounded = zip(*(probing.slope(points, y) for points in (x, beside)), strict=True)
    return gains, grads, beside - x, torch.stack(rounded).mean(0)


def _is_unsaid(gains: Sequence[Tensor], grads: Sequence[Tensor], aside: Tensor, rounded: Tensor) -> Tensor:
    """Whether a good part of the change from one point to another is not what the gradients there say: bool `(N,)`."""
    return unexplained((gains[1] - gains[0])[None], (grads[0] + grads[1]) / 2, aside[None], rounded) > _UNSAID


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Of two gradients of each sample, `(N,)`; 0 where one of them is 0."""
    unit = L2(eps=1).direction  # which no tiny gradient underflows in
    return torch.cosine_similarity(unit(one).flatten(1), unit(other).flatten(1))
